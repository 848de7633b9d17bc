"""The rooms of the toolkit; imports between them point down only (see STYLE in the README)."""
