"""What the commands do, in rooms: train, evaluate, sample, tokenize, share, resolve, runtime."""
