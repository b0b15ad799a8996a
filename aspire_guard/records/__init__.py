"""The files that people have, read as records: JSONL, JSON arrays, CSV, Parquet, frames and standard input."""
