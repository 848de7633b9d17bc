"""The ideas of the papers, one room each; imports between them point down only (tests/test_house.py)."""
