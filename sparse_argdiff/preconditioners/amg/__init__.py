"""Algebraic multigrid: the hierarchy of PyAMG, a fused V-cycle of our own."""
