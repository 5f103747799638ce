"""A loop as people see it: one document, and the page, report, table, recording and W&B rows made from it."""
