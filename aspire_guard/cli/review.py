"""The commands `review list`, `decide`, `export`, `verify` and `purge`."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from pydantic import ValidationError

from aspire_guard.errors import InputError
from aspire_guard.files import describe_validation_error, write_text

if TYPE_CHECKING:
    from aspire_guard.review import ReviewQueue, Ticket, TicketFilter, TicketPage

_DAMAGED = 4
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGE = re.compile(r"(\d+)([smhd])")
_WIDTH = 60

Queue = Annotated[
    str,
    typer.Option(
        "--queue",
        envvar="ASPIRE_GUARD_QUEUE",
        help="The URL of the queue's database. Passwords belong into the variable.",
    ),
]
Group = Annotated[str | None, typer.Option(help="Only answers of this group.")]
State = Annotated[
    Literal["open", "decided", "expired", "withdrawn"] | None,
    typer.Option(help="Only tickets in this state."),
]
Age = Annotated[
    str | None,
    typer.Option("--older-than", help="Only tickets older than this: 90d, 12h, 30m or 10s."),
]

_DEFAULT_QUEUE = "sqlite:///reviews.db"

review = typer.Typer(
    help="Work with the review queue.", no_args_is_help=True, rich_markup_mode=None
)


@review.command("list")
def list_tickets(
    queue: Queue = _DEFAULT_QUEUE,
    status: State = None,
    group: Group = None,
    max_confidence: Annotated[
        float | None, typer.Option(help="Only answers with at most this confidence.")
    ] = None,
    older_than: Age = None,
    reviewer: Annotated[
        str | None, typer.Option(help="Only tickets of this reviewer, decided or claimed.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(help="Only tickets with this text in question or answer.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="The number of tickets to show.")] = 20,
    after: Annotated[
        str | None, typer.Option(help="Go on after the place that the last list has named.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object a line, with everything.")
    ] = False,
) -> None:
    """List tickets, the oldest first.

    Example: aspire-guard review list --status open --older-than 1d
    """
    where = _make_filter(
        status=status,
        group=group,
        max_confidence=max_confidence,
        created_before=_find_time(older_than),
        reviewer=reviewer,
        text=text,
    )
    page = _open(queue).list(where, limit=limit, after=after)
    for ticket in page:
        typer.echo(json.dumps(ticket.model_dump(mode="json")) if as_json else _format(ticket))
    _report_rest(page)


@review.command()
def decide(
    ticket: Annotated[str, typer.Argument(help="The id of the ticket.")],
    action: Annotated[
        Literal["approve", "edit", "reject", "respond"], typer.Argument(help="The decision.")
    ],
    reviewer: Annotated[str, typer.Option(help="The name of the person who decides.")],
    text: Annotated[
        str | None, typer.Option(help="The edited answer, or the response in its place.")
    ] = None,
    comment: Annotated[str | None, typer.Option(help="The reason for the decision.")] = None,
    queue: Queue = _DEFAULT_QUEUE,
) -> None:
    """Decide on a ticket. The same decision again changes nothing.

    Example: aspire-guard review decide 4f1c… edit --text "Ada keeps the key." --reviewer bea
    """
    from aspire_guard.review import Decision

    try:
        decision = Decision(action=action, text=text, reviewer=reviewer, comment=comment)
    except ValidationError as error:
        raise InputError(
            f"{describe_validation_error(error, 'the decision')}; pass or leave out --text"
        ) from error
    typer.echo(_format(_open(queue).decide(ticket, decision)))


@review.command()
def export(
    output: Annotated[Path, typer.Argument(help="The JSONL file to write.")],
    queue: Queue = _DEFAULT_QUEUE,
    group: Group = None,
    older_than: Age = None,
) -> None:
    """Export the decisions as labelled answers, for calibration and training.

    Each line has the question, the context, the answer with its scores, and `correct`: approved answers are right, all
    others wrong. Edits and responses are `references`. `weight` makes up for the share of answers that are reviewed.

    Example: aspire-guard review export reviewed.jsonl
    """
    from aspire_guard.review.labels import generate_labelled_lines

    where = _make_filter(group=group, created_before=_find_time(older_than))
    lines = [json.dumps(line) for line in generate_labelled_lines(_open(queue), where)]
    write_text(output, "".join(f"{line}\n" for line in lines))
    typer.echo(f"{output}: {len(lines):,} labelled answers")


@review.command()
def verify(
    queue: Queue = _DEFAULT_QUEUE,
    head: Annotated[
        str | None,
        typer.Option(help="The head that an earlier check has printed, and that you kept."),
    ] = None,
) -> None:
    """Check the audit trail and the tickets against each other.

    Exit code 0: whole. Exit code 4: something was changed, removed or added.

    Example: aspire-guard review verify --head 9b1e…
    """
    report = _open(queue).verify(head=head)
    typer.echo(f"{report.n_entries:,} entries, head {report.head}")
    for problem in report.problems:
        typer.echo(problem)
    if not report.is_whole:
        raise typer.Exit(_DAMAGED)
    typer.echo("the audit trail is whole")


@review.command()
def purge(
    queue: Queue = _DEFAULT_QUEUE,
    older_than: Age = None,
    group: Group = None,
    ticket: Annotated[
        list[str] | None,
        typer.Option(help="Erase this ticket, be it open or not; may be given several times."),
    ] = None,
) -> None:
    """Erase tickets that nobody waits for any more, and all personal data about them. There is no way back.

    The audit trail still says when each was submitted, decided and purged, and stays verifiable.

    Example: aspire-guard review purge --older-than 90d
    """
    if not ticket and older_than is None and group is None:
        raise InputError(
            "purge: expected tickets to erase, found no choice; pass --older-than, --group or --ticket"
        )
    where = _make_filter(group=group, created_before=_find_time(older_than))
    n_purged = _open(queue).purge(where, ticket_ids=ticket or ())
    typer.echo(f"{n_purged:,} tickets erased")


def _open(url: str) -> ReviewQueue:
    from aspire_guard.review import ReviewQueue

    return ReviewQueue(url)


def _make_filter(**fields: object) -> TicketFilter:
    from aspire_guard.review import TicketFilter

    try:
        return TicketFilter.model_validate(fields)
    except ValidationError as error:
        raise InputError(f"{describe_validation_error(error, 'the filter')}; fix it") from error


def _find_time(age: str | None) -> datetime | None:
    """Return the time that lies an age such as 90d back, or None without an age."""
    if age is None:
        return None
    found = _AGE.fullmatch(age)
    if found is None:
        raise InputError(
            f"--older-than: expected a number with d, h, m or s, found {age!r}; write for example 90d"
        )
    return datetime.now(UTC) - timedelta(seconds=int(found[1]) * _SECONDS[found[2]])


def _format(ticket: Ticket) -> str:
    """Return a ticket on one line, without control characters, which a terminal would obey."""
    item = ticket.item
    confidence = "-" if item.confidence is None else f"{item.confidence:.3f}"
    state = ticket.status if ticket.decision is None else ticket.decision.action
    question = " ".join(item.question.split())
    shown = question if len(question) <= _WIDTH else f"{question[: _WIDTH - 1]}…"
    shown = "".join(character if character.isprintable() else "�" for character in shown)
    return f"{ticket.id}  {ticket.created:%Y-%m-%d %H:%M}  {state:9}  {confidence:>5}  {shown}"


def _report_rest(page: TicketPage) -> None:
    for ticket_id in page.damaged:
        typer.echo(f"warning: ticket {ticket_id} can't be read", err=True)
    rest = "" if page.next is None else f"; go on with --after {page.next}"
    typer.echo(f"{len(page):,} of {page.total:,} tickets{rest}", err=True)
