"""A seeded generator of hostile evaluator folders: each alters a sound folder in one way that a stranger could."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save

from aspire_guard.errors import EvaluatorFolderError
from aspire_guard.evaluators.evaluator_folder import seal_evaluator

JSON_FILES = (
    "aspire.json",
    "calibration.json",
    "self_eval/adapter_config.json",
    "task/adapter_config.json",
)
TENSOR_FILES = ("self_eval/adapter_model.safetensors", "task/adapter_model.safetensors")
ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 0.5, 10**7, 10**400, 1e308, float("nan"), float("inf"), "", "x" * 10**5, "(a+)+$",
    "../../etc/passwd", "\ud800", "\x00", [], {}, [[]], {"a": {"b": 1}}, ["(a+)+$"] * 10**4,
)  # fmt: skip
# Settings of PEFT that import code, rewrite the base model, hang or change scores.
PEFT_TRAPS: tuple[dict[str, Any], ...] = (
    {"megatron_core": "canary", "megatron_config": {"a": 1}},
    {"init_lora_weights": "pissa"},
    {"init_lora_weights": "olora"},
    {"lora_dropout": 0.9},
    {"r": 10**7},
    {"target_modules": "(a+)+$"},
    {"target_modules": "all-linear"},
    {"target_modules": ["q_proj", "canary"]},
    {"lora_alpha": 1e308},
    {"modules_to_save": ["lm_head"]},
    {"auto_mapping": {"base_model_class": "canary", "parent_library": "canary"}},
    {"peft_type": "canary"},
    {"layer_replication": [[0, 10**6]]},
    {"use_dora": True},
    {"loftq_config": {"loftq_bits": 4}},
)

Change = Callable[[Path, random.Random], None]


def spoil(folder: Path, seed: int) -> str:
    """Spoil a sound folder in the way of this seed, and return a description.

    Every second folder is sealed again, as a stranger can do, if its seal can be computed at all.
    """
    generator = random.Random(seed)
    change = CHANGES[seed % len(CHANGES)]
    change(folder, generator)
    if change in RESEALED and generator.random() < 0.5:
        try:
            seal_evaluator(folder)
        except EvaluatorFolderError:
            return f"{change.__name__}, unsealable"
        return f"{change.__name__}, sealed"
    return change.__name__


def change_a_value(folder: Path, generator: random.Random) -> None:
    """Put an odd value anywhere in a JSON file."""
    path = folder / generator.choice(JSON_FILES)
    values = _read(path)
    place: Any = values
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = generator.choice(keys)
        inner = place[key]
        if not (isinstance(inner, dict | list) and inner and generator.random() < 0.7):
            break
        place = inner
    place[key] = generator.choice(ODD_VALUES)
    path.write_text(json.dumps(values), encoding="utf-8")


def change_a_digit(folder: Path, generator: random.Random) -> None:
    """Change one digit of a JSON file."""
    path = folder / generator.choice(JSON_FILES)
    text = path.read_text(encoding="utf-8")
    places = [place for place, letter in enumerate(text) if letter.isdigit()]
    place = generator.choice(places)
    digit = str((int(text[place]) + generator.randint(1, 9)) % 10)
    path.write_text(text[:place] + digit + text[place + 1 :], encoding="utf-8")


def swap_the_verdicts(folder: Path, generator: random.Random) -> None:
    """Let z_c and z_w change places."""
    values = _read(folder / "aspire.json")
    values["correct"], values["wrong"] = values["wrong"], values["correct"]
    (folder / "aspire.json").write_text(json.dumps(values), encoding="utf-8")


def set_a_trap_of_peft(folder: Path, generator: random.Random) -> None:
    """Put settings into θs's config that PEFT would obey."""
    path = folder / "self_eval/adapter_config.json"
    values = _read(path) | generator.choice(PEFT_TRAPS)
    path.write_text(json.dumps(values), encoding="utf-8")


def repeat_a_key(folder: Path, generator: random.Random) -> None:
    """Give a key of a JSON file a second value."""
    path = folder / generator.choice(JSON_FILES)
    text = path.read_text(encoding="utf-8")
    key = generator.choice(list(json.loads(text)))
    path.write_text("{" + json.dumps(key) + ": 0," + text.lstrip()[1:], encoding="utf-8")


def nest_deeply(folder: Path, generator: random.Random) -> None:
    """Replace a JSON file by brackets alone."""
    depth = generator.choice([10**3, 10**5, 10**6])
    opening, closing = generator.choice([("[", "]"), ('{"a":', "}")])
    content = opening * depth + "1" + closing * depth
    (folder / generator.choice(JSON_FILES)).write_text(content, encoding="utf-8")


def encode_otherwise(folder: Path, generator: random.Random) -> None:
    """Write a JSON file in another encoding."""
    path = folder / generator.choice(JSON_FILES)
    text = path.read_text(encoding="utf-8")
    path.write_bytes(
        text.encode(generator.choice(["utf-16", "utf-32", "utf-8-sig", "utf-7"])) + b"\xff"
    )


def put_a_link(folder: Path, generator: random.Random) -> None:
    """Replace a file or a folder by a link: to its twin, to a device, to itself or to nothing."""
    name = generator.choice([*JSON_FILES, *TENSOR_FILES, "task", "self_eval"])
    path, moved = folder / name, folder.parent / "elsewhere"
    os.rename(path, moved)
    path.symlink_to(generator.choice([moved, Path("/dev/zero"), path, Path("/nowhere")]))


def put_a_pipe(folder: Path, generator: random.Random) -> None:
    """Replace a file by a pipe that nobody writes to."""
    path = folder / generator.choice([*JSON_FILES, *TENSOR_FILES])
    path.unlink()
    os.mkfifo(path)


def put_a_folder(folder: Path, generator: random.Random) -> None:
    """Replace a file by a folder."""
    path = folder / generator.choice([*JSON_FILES, *TENSOR_FILES])
    path.unlink()
    path.mkdir()


def grow_a_file(folder: Path, generator: random.Random) -> None:
    """Make a file larger than any memory. It is sparse, and takes no room."""
    with (folder / generator.choice([*JSON_FILES, *TENSOR_FILES])).open("ab") as file:
        file.truncate(generator.choice([10**8, 2**42]) + 2**31)


def name_another_file(folder: Path, generator: random.Random) -> None:
    """List a file outside of the folder, or of an odd name."""
    values = _read(folder / "aspire.json")
    outside = [
        "../outside.json",
        "/etc/passwd",
        "/dev/zero",
        "task/../../x",
        "\x00",
        "a" * 5000,
        "",
    ]
    values["files"][generator.choice(outside)] = "0" * 64
    (folder / "aspire.json").write_text(json.dumps(values), encoding="utf-8")


def change_the_tensors(folder: Path, generator: random.Random) -> None:
    """Give a tensor another shape, type, value or name, or add one."""
    path = folder / generator.choice(TENSOR_FILES)
    tensors = load_file(path)
    name = generator.choice(sorted(tensors))
    tensor = tensors[name]
    changed = {
        "shape": tensor.T.contiguous(),
        "longer": tensor.repeat(4, 1),
        "empty": tensor[:0],
        "flat": tensor.flatten(),
        "float64": tensor.double(),
        "int64": tensor.long(),
        "float8": tensor.to(torch.float8_e4m3fn),
        "nan": torch.full_like(tensor, torch.nan),
        "infinite": torch.full_like(tensor, torch.inf),
    }
    kind = generator.choice([*changed, "name", "more", "fewer"])
    if kind in changed:
        tensors[name] = changed[kind]
    elif kind == "name":
        tensors["__class__"] = tensors.pop(name)
    elif kind == "more":
        tensors["base_model.model.lm_head.weight"] = torch.zeros(8, 2)
    else:
        del tensors[name]
    text = "\n{question} {answer}\nWell?"
    path.write_bytes(save(tensors, metadata={"text": text}))


def damage_the_tensors(folder: Path, generator: random.Random) -> None:
    """Write something else than tensors, or a header that lies about its length."""
    path = folder / generator.choice(TENSOR_FILES)
    content = path.read_bytes()
    damaged = [
        b"",
        content[:20],
        b"\xff" * 64,
        b"\x80\x04canary",
        content[:-4],
        content + b"\0" * 64,
    ]
    path.write_bytes(generator.choice([*damaged, (2**40).to_bytes(8, "little") + content[8:]]))


def remove_something(folder: Path, generator: random.Random) -> None:
    """Remove a file or a part."""
    path = folder / generator.choice([*JSON_FILES, *TENSOR_FILES, "task", "self_eval"])
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


CHANGES: tuple[Change, ...] = (
    change_a_value, change_a_digit, swap_the_verdicts, set_a_trap_of_peft, repeat_a_key, nest_deeply,
    encode_otherwise, put_a_link, put_a_pipe, put_a_folder, grow_a_file, name_another_file,
    change_the_tensors, damage_the_tensors, remove_something,
)  # fmt: skip
# Sealed again, these must still be refused, or change no score.
RESEALED = {
    set_a_trap_of_peft, repeat_a_key, nest_deeply, put_a_link, put_a_pipe, name_another_file, change_the_tensors,
    damage_the_tensors,
}  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values
