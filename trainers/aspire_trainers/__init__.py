"""Trainers: from questions with references to an evaluator folder, by the three stages of ASPIRE."""
