"""Linear operators by their products, and block matrices made of them."""
