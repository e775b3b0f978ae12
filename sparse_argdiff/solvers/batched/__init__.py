"""One primal-dual interior point for many small dense quadratic programs at once."""
