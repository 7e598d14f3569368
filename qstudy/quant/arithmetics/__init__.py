"""How a layer computes, one file for each arithmetic."""
