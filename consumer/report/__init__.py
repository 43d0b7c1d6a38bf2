"""What people read: the table, the verification of published runs."""
