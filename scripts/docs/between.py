"""The generated part of a file, between two markers."""


def between(document: str, name: str, text: str, comment: str = "<!-- {} -->") -> str:
    """A document whose part between its markers `name:begin` and `name:end` is the text.

    Args:
        document: the whole text.
        name: the name in the markers.
        text: the new part, without the line breaks around it.
        comment: how the document's language writes a comment, `{}` standing for its words.

    Raises:
        ValueError: the marker that the message names is missing in the document.
    """
    begin, end = comment.format(f"{name}:begin"), comment.format(f"{name}:end")
    if missing := [marker for marker in (begin, end) if marker not in document]:
        raise ValueError(f"the marker {missing[0]} is missing")
    head, tail = document.index(begin) + len(begin), document.index(end)
    return f"{document[:head]}\n{text}\n{document[tail:]}"
