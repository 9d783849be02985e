r"""Matrices: transposed, negated, multiplied or divided by a number, added. The operations move into the cells."""

from east_ray.answers.symbolic.tree import Apply, Node, Symbol

Rows = tuple[tuple[Node, ...], ...]
_TRANSPOSED = (Symbol("T"), Symbol("⊤"), Symbol("\\top"))


def as_matrix(node: Apply) -> Node | None:
    """One matrix that equals the expression. None: it is none, as the quotient of two, or already one."""
    if node.operator not in ("*", "/", "-", "+", "^"):
        return None
    rows = _rows(node)
    return None if rows is None else Apply("matrix", tuple(Apply("row", row) for row in rows))


def _rows(node: Node) -> Rows | None:
    if not isinstance(node, Apply):
        return None
    if node.operator == "matrix":
        rows = tuple(row.arguments for row in node.arguments if isinstance(row, Apply))
        return rows if len({len(row) for row in rows}) == 1 else None
    if node.operator == "^" and node.arguments[1] in _TRANSPOSED:
        return _transposed(node.arguments[0])
    if node.operator == "+":
        return _sum(node)
    return _scaled(node) if node.operator in ("*", "/", "-") else None


def _transposed(node: Node) -> Rows | None:
    """The transpose of a matrix; a tuple (1, 2) counts as a row."""
    if isinstance(node, Apply) and node.operator in ("()", "[]"):
        return tuple((cell,) for cell in node.arguments)
    rows = _rows(node)
    return None if rows is None else tuple(zip(*rows, strict=True))


def _sum(node: Apply) -> Rows | None:
    terms: list[Rows] = []
    for argument in node.arguments:
        rows = _rows(argument)
        if rows is None or (terms and _shape(rows) != _shape(terms[0])):
            return None
        terms.append(rows)
    num_rows, num_columns = _shape(terms[0])
    return tuple(
        tuple(Apply("+", tuple(term[i][j] for term in terms)) for j in range(num_columns)) for i in range(num_rows)
    )


def _scaled(node: Apply) -> Rows | None:
    matrices = [(place, rows) for place, part in enumerate(node.arguments) if (rows := _rows(part)) is not None]
    if len(matrices) != 1 or (node.operator == "/" and matrices[0][0] != 0):
        return None
    place, rows = matrices[0]
    arguments = node.arguments

    def scaled(cell: Node) -> Node:
        return Apply(node.operator, (*arguments[:place], cell, *arguments[place + 1 :]))

    return tuple(tuple(map(scaled, row)) for row in rows)


def _shape(rows: Rows) -> tuple[int, int]:
    return len(rows), len(rows[0])
