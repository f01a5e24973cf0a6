"""Models that each predict a mixture for every row, and the stack that mixes them."""
