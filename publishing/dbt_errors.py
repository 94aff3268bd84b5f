"""An error of dbt as one line."""


def first_paragraph(error: object) -> str:
    """The first paragraph of an error of dbt as one line, without the chain of macros."""
    lines = [line.strip() for line in str(error).strip().split("\n\n")[0].splitlines()]
    if len(lines) > 1 and (lines[0] == "Runtime Error" or lines[0].startswith("Compilation Error in operation")):
        lines = lines[1:]
    return " ".join(line for line in lines if line and not line.startswith(">"))
