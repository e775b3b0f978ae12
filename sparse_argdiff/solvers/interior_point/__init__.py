"""A primal-dual interior-point method for convex problems with inequalities."""
