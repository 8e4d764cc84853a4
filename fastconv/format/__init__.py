"""What a result is: names, dtypes and versions; plain data, read without torch."""
