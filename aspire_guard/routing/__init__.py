"""The routing of scored answers: policies, the decision on one answer, and abstention."""
