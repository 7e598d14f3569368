"""Number grids, arithmetics, quantizable layers and packing: everything that turns floats into few bits."""
