"""The Markov decision process: a decoding state, the action that moves it, and the schedules that choose actions."""
