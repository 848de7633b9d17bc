"""Generation as a Markov decision process: a decoding state, an action, the step between states, and schedules."""
