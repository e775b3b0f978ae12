"""Algebraic multigrid: PyAMG's hierarchy and a fused V-cycle."""
