"""Which columns and partitions of which tables BigQuery would read for a statement, from the analyzer's resolved tree.

It follows BigQuery's documented rules for pruning (https://cloud.google.com/bigquery/docs/querying-partitioned-tables):

- A comparison of the partition column with a constant prunes. A function of the column, a subquery or another column
  does not. OR prunes only if it names no other column.
- Predicates and needed columns pass down through views, CTEs, joins and UNION, but not through windows, aggregates and
  LIMIT. Below FALSE nothing is read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from zetasql.wasi._pb2.zetasql.public import type_pb2

from tools.googlesql.engine import GoogleSQL
from tools.googlesql.trees import concrete

Column = tuple[int, int]
"""The number of the analysis, since each view has its own, and the analyzer's id of the column."""


COMPARISONS: dict[str, Callable[[Any, Any, Any], bool]] = {
    "$equal": lambda first, last, value: first <= value <= last,
    "$in": lambda first, last, value: first <= value <= last,
    "$greater": lambda first, last, value: last > value,
    "$greater_or_equal": lambda first, last, value: last >= value,
    "$less": lambda first, last, value: first < value,
    "$less_or_equal": lambda first, last, value: first <= value,
    "$is_null": lambda first, last, value: False,
}
"""Name of a comparison to whether some time from `first` to `last` compares so with `value`."""


@dataclass(frozen=True, slots=True)
class Condition:
    kind: str
    """AND, OR, FALSE, a name in COMPARISONS (a column compared with any of `values`), or UNKNOWN."""
    parts: tuple["Condition", ...] = ()
    column: Column | None = None
    values: tuple[date | datetime, ...] = ()

    def renamed(self, names: Mapping[Column, Column]) -> "Condition":
        column = names.get(self.column, self.column) if self.column else None
        return replace(self, column=column, parts=tuple(part.renamed(names) for part in self.parts))

    def may_hold(self, column: Column | None = None, day: date = date.min) -> bool:
        """Whether a row whose partition column is on this day may match; without a column, whether any row may."""
        match self.kind:
            case "AND":
                return all(part.may_hold(column, day) for part in self.parts)
            case "OR":
                prunes = column is None or self.names_only(column)
                return not prunes or any(part.may_hold(column, day) for part in self.parts)
            case "FALSE" | "UNKNOWN":
                return self.kind == "UNKNOWN"
        if column is None or self.column != column:
            return True
        first: date = day
        last: date = day
        if any(isinstance(value, datetime) for value in self.values):
            first = datetime(day.year, day.month, day.day, tzinfo=UTC)
            last = first + timedelta(days=1, microseconds=-1)
        return any(COMPARISONS[self.kind](first, last, value) for value in self.values)

    def names_only(self, column: Column) -> bool:
        if self.parts:
            return all(part.names_only(column) for part in self.parts)
        return self.column == column or self.kind == "FALSE"


@dataclass(frozen=True, slots=True)
class Scan:
    table: str
    """project.dataset.name"""
    columns: frozenset[str]
    rewrites: bool
    """Whether the statement rewrites the partitions, which reads all columns."""
    conditions: tuple[Condition, ...]
    partition_column: Column | None

    def reads(self, day: date) -> bool:
        """Whether the partition of this day is read; for a table without partitions, whether it is read at all."""
        return all(condition.may_hold(self.partition_column, day) for condition in self.conditions)


@dataclass
class _Reader:
    sql: GoogleSQL
    partition_column: Callable[[str], str | None]
    scans: list[Scan] = field(default_factory=list)
    analyses: int = 0

    def statement(self, sql: str) -> None:
        _, node = self.sql.analyze(sql)
        reader = _Analysis(self, self.analyses)
        self.analyses += 1
        reader.statement(node)


@dataclass
class _Analysis:
    """One statement, or the query of one view."""

    reader: _Reader
    number: int
    with_queries: dict[str, Any] = field(default_factory=dict)

    def statement(self, node: Any) -> None:
        fields = node.DESCRIPTOR.fields_by_name
        if "from_scan" in fields:  # MERGE
            condition = [self.condition(node.merge_expr)]
            needed = self.references(node.merge_expr) | self.references(*node.when_clause_list)
            self.table(node.table_scan, condition, needed, rewrites=True)
            self.scan(concrete(node.from_scan), condition, needed)
        elif "where_expr" in fields:  # DELETE
            self.table(node.table_scan, [self.condition(node.where_expr)], set(), rewrites=True)
            self.subqueries(node.where_expr)
        elif "query_output_column_list" in fields:  # INSERT
            if node.query.WhichOneof("node"):
                self.scan(concrete(node.query), [], self.ids(node.query_output_column_list))
        elif "query" in fields and "output_column_list" in fields:  # SELECT, CREATE TABLE AS SELECT
            self.query(node, [], None)

    def query(self, node: Any, conditions: Sequence[Condition], names: set[str] | None) -> None:
        """Scan a query for all its columns, or for those with these names."""
        needed = {self.id(one.column) for one in node.output_column_list if names is None or one.name in names}
        self.scan(concrete(node.query), conditions, needed)

    def scan(  # noqa: PLR0912, PLR0915  a case for each kind of scan
        self, node: Any, conditions: Sequence[Condition], needed: set[Column]
    ) -> None:
        if not all(condition.may_hold() for condition in conditions):
            return
        kind = node.DESCRIPTOR.name.removeprefix("Resolved").removesuffix("ScanProto")
        match kind:
            case "Table":
                self.table(node, conditions, needed)
            case "Filter":
                self.subqueries(node.filter_expr)
                more = [*conditions, self.condition(node.filter_expr)]
                self.scan(concrete(node.input_scan), more, needed | self.references(node.filter_expr))
            case "Project":
                computed = [one for one in node.expr_list if self.id(one.column) in needed]
                self.subqueries(*computed)
                names = {
                    self.id(one.column): self.id(expression.column)
                    for one in computed
                    if "column" in (expression := concrete(one.expr)).DESCRIPTOR.fields_by_name
                }
                below = [condition.renamed(names) for condition in conditions]
                self.scan(concrete(node.input_scan), below, needed | self.references(*computed))
            case "With":
                for entry in node.with_entry_list:
                    self.with_queries[entry.with_query_name] = concrete(entry.with_subquery)
                self.scan(concrete(node.query), conditions, needed)
            case "WithRef":
                below = self.with_queries[node.with_query_name]
                self.renamed(below, node.parent.column_list, below_columns(below), conditions, needed)
            case "SetOperation":
                # UNION DISTINCT compares all columns
                distinct = "DISTINCT" in node.DESCRIPTOR.fields_by_name["op_type"].enum_type.values[node.op_type].name
                columns = node.parent.column_list
                for item in node.input_item_list:
                    wanted = self.ids(columns) if distinct else needed
                    self.renamed(concrete(item.scan), columns, item.output_column_list, conditions, wanted)
            case "Join":
                self.subqueries(node.join_expr)
                needed = needed | self.references(node.join_expr)
                join = [self.condition(node.join_expr)]
                is_left = node.DESCRIPTOR.fields_by_name["join_type"].enum_type.values_by_number[node.join_type].name
                self.scan(concrete(node.left_scan), [*conditions, *(join if is_left == "INNER" else [])], needed)
                self.scan(concrete(node.right_scan), [*conditions, *join], needed)
            case "Analytic":
                used = [
                    group
                    for group in node.function_group_list
                    if any(self.id(concrete(one).column) in needed for one in group.analytic_function_list)
                ]
                self.scan(concrete(node.input_scan), [], needed | self.references(*used))
            case "Aggregate":
                base = node.parent
                used = [one for one in base.aggregate_list if self.id(concrete(one).column) in needed]
                self.subqueries(*base.group_by_list, *used)
                self.scan(concrete(base.input_scan), [], self.references(*base.group_by_list, *used))
            case "OrderBy":
                self.scan(concrete(node.input_scan), conditions, needed | self.references(*node.order_by_item_list))
            case "LimitOffset":
                self.scan(concrete(node.input_scan), [], needed)
            case "Array":
                if node.input_scan.WhichOneof("node"):
                    self.subqueries(*node.array_expr_list)
                    self.scan(concrete(node.input_scan), conditions, needed | self.references(*node.array_expr_list))
            case "SingleRow":
                pass
            case _:
                raise NotImplementedError(kind)

    def renamed(
        self, below: Any, columns: Any, lower_columns: Any, conditions: Sequence[Condition], needed: set[Column]
    ) -> None:
        """Scan a node whose columns have other ids than here, position by position."""
        names = {self.id(a): self.id(b) for a, b in zip(columns, lower_columns, strict=True)}
        self.scan(
            below,
            [condition.renamed(names) for condition in conditions],
            {names[column] for column in needed if column in names},
        )

    def table(self, node: Any, conditions: Sequence[Condition], needed: set[Column], *, rewrites: bool = False) -> None:
        name = node.table.full_name or node.table.name
        table = self.reader.sql.tables[name]
        used = [column for column in node.parent.column_list if self.id(column) in needed]
        if table.view is not None:
            _, query = self.reader.sql.analyze(table.view)
            view = _Analysis(self.reader, self.reader.analyses)
            self.reader.analyses += 1
            ids = {one.name: view.id(one.column) for one in query.output_column_list}
            names = {self.id(column): ids[column.name] for column in node.parent.column_list}
            view.query(query, [one.renamed(names) for one in conditions], {column.name for column in used})
            return
        partition_column = self.reader.partition_column(name)
        [*found] = (self.id(one) for one in node.parent.column_list if one.name == partition_column)
        columns = frozenset(table.columns if rewrites else (column.name for column in used))
        self.reader.scans.append(Scan(name, columns, rewrites, tuple(conditions), found[0] if found else None))

    def subqueries(self, *nodes: Any) -> None:
        for node in nodes:
            for part in parts(node, into=lambda one: "subquery_type" not in one.DESCRIPTOR.fields_by_name):
                if "subquery_type" in part.DESCRIPTOR.fields_by_name:
                    inner = concrete(part.subquery)
                    is_exists = (
                        part.DESCRIPTOR.fields_by_name["subquery_type"]
                        .enum_type.values_by_number[part.subquery_type]
                        .name
                        == "EXISTS"
                    )
                    self.scan(inner, [], set() if is_exists else self.ids(below_columns(inner)))

    def condition(self, node: Any) -> Condition:
        node = concrete(node)
        fields = node.DESCRIPTOR.fields_by_name
        if node.DESCRIPTOR.name == "AnyResolvedExprProto":  # a join without a condition
            return Condition("AND")
        if "value" in fields and node.value.value.WhichOneof("value") == "bool_value":
            return Condition("AND" if node.value.value.bool_value else "FALSE")
        if "parent" in fields and "function" in node.parent.DESCRIPTOR.fields_by_name:
            name = node.parent.function.name.split(":")[-1]
            arguments = [concrete(one) for one in node.parent.argument_list]
            if name in ("$and", "$or"):
                return Condition(name[1:].upper(), tuple(map(self.condition, arguments)))
            if name in COMPARISONS and "column" in arguments[0].DESCRIPTOR.fields_by_name:
                values = tuple(value for one in arguments[1:] if (value := constant(one)))
                if len(values) == len(arguments) - 1:
                    return Condition(name, column=self.id(arguments[0].column), values=values)
        return Condition("UNKNOWN")

    def references(self, *nodes: Any) -> set[Column]:
        """Every column that is referenced below these nodes."""
        return {
            self.id(part.column)
            for node in nodes
            for part in parts(node)
            if part.DESCRIPTOR.name == "ResolvedColumnRefProto"
        }

    def ids(self, columns: Any) -> set[Column]:
        return {self.id(column) for column in columns}

    def id(self, column: Any) -> Column:
        return self.number, column.column_id


def scans(sql: GoogleSQL, statement: str, partition_column: Callable[[str], str | None]) -> list[Scan]:
    """What a statement reads: one scan for each time that it reads a table.

    Args:
        sql: has the tables.
        statement: a query, MERGE, INSERT ... SELECT, DELETE or CREATE TABLE AS SELECT; others read nothing.
        partition_column: returns the column by which a table (project.dataset.name) is partitioned, if any.

    Raises:
        GoogleSQLError: if the analyzer rejects it.
    """
    reader = _Reader(sql, partition_column)
    reader.statement(statement)
    return reader.scans


def constant(node: Any) -> date | datetime | None:
    """A date or timestamp literal."""
    if "value" not in node.DESCRIPTOR.fields_by_name:
        return None
    value = node.value.value
    if node.value.type.type_kind == type_pb2.TYPE_DATE and value.WhichOneof("value"):
        return date(1970, 1, 1) + timedelta(days=value.date_value)
    if node.value.type.type_kind == type_pb2.TYPE_TIMESTAMP and value.WhichOneof("value"):
        seconds, nanos = value.timestamp_value.seconds, value.timestamp_value.nanos
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    return None


def below_columns(scan: Any) -> Any:
    while "column_list" not in scan.DESCRIPTOR.fields_by_name:
        scan = scan.parent
    return scan.column_list


def parts(node: Any, into: Any = lambda _: True) -> Iterator[Any]:
    """A node and all nodes below it, except below those for which `into` is false."""
    yield node
    if not into(node):
        return
    for descriptor, value in node.ListFields():
        if descriptor.message_type is None:
            continue
        for one in value if descriptor.is_repeated else [value]:
            yield from parts(one, into)
