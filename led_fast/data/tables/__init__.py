"""Tables of numbers with named columns: any file of them as training data."""
