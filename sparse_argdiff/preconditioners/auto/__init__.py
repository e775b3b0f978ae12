"""The preconditioner that ``M="auto"`` chooses."""
