raise ValueError("a broken file")
