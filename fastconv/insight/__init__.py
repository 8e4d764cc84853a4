"""Tables that say what filters are, whom they depend on and what becomes of the rest without them."""
