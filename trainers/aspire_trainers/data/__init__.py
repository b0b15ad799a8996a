"""The data of training: QA records, answers of chains, and batches of both."""
