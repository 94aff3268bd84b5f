"""Runs GoogleSQL, the language of BigQuery, on tables in memory.

PyPI's zetasql has Google's analyzer and reference implementation, compiled to WebAssembly. The first start compiles for
half a minute; wasmtime caches the result.
"""

import ctypes
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import wasmtime
from google._upb import _message
from zetasql.core import wasm_client
from zetasql.core.exceptions import ServerError
from zetasql.wasi import get_wasm_path
from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as service
from zetasql.wasi._pb2.zetasql.proto import options_pb2, simple_catalog_pb2
from zetasql.wasi._pb2.zetasql.public import options_pb2 as language_pb2
from zetasql.wasi._pb2.zetasql.public import simple_table_pb2, type_pb2
from zetasql.wasi._pb2.zetasql.resolved_ast import resolved_node_kind_pb2

from tools.googlesql.features import FEATURES
from tools.googlesql.trees import concrete, created_name, names_in, text_of, with_flat_names

INTEGER_ALIASES = ("INT", "SMALLINT", "INTEGER", "BIGINT", "TINYINT", "BYTEINT")
"""BigQuery's other names of INT64."""

QUERY = re.compile(r"(?:\s|/\*.*?\*/|--[^\n]*\n)*(?:select|with)\b", re.IGNORECASE | re.DOTALL)


class GoogleSQLError(Exception):
    """A statement is rejected, or cannot be evaluated; with line and column, if they are known."""

    def __init__(self, message: str, sql: str) -> None:
        found = re.search(r" \[at (\d+):(\d+)\]$", message)
        self.line = int(found[1]) if found else None
        self.column = int(found[2]) if found else None
        self.message = message
        if self.line and self.column:
            self.message += f"\n{sql.splitlines()[self.line - 1]}\n{' ' * (self.column - 1)}^"
        super().__init__(self.message)


@dataclass
class Table:
    columns: dict[str, Any]
    """Column name to its TypeProto, in order."""
    required: set[str] = field(default_factory=set)
    """Columns that are NOT NULL."""
    rows: list[Any] = field(default_factory=list)
    """TableData.Row protos with one cell per column."""
    view: str | None = None
    """The query of a view."""
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Result:
    kind: str
    """SELECT, CREATE_TABLE_AS_SELECT, MERGE, ... as BigQuery names them."""
    columns: dict[str, Any] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)
    affected: int = 0
    """Rows written or deleted."""


class _CachingConfig(wasmtime.Config):
    def __init__(self) -> None:
        super().__init__()
        self.cache = True


class _Client(wasm_client.WasmClient):  # type: ignore[misc]
    """The library's client, but memory is copied at once instead of byte by byte."""

    def _address(self, pointer: int) -> int:
        return ctypes.addressof(self.memory.data_ptr().contents) + pointer

    def write_bytes(self, ptr: int, data: bytes) -> None:
        ctypes.memmove(self._address(ptr), data, len(data))

    def read_bytes(self, ptr: int, size: int) -> bytes:
        return ctypes.string_at(self._address(ptr), size)


class GoogleSQL:
    """Tables by `project.dataset.name`, and statements that read and change them."""

    def __init__(self) -> None:
        wasm_client.Config = _CachingConfig
        _message.SetAllowOversizeProtos(True)  # trees of statements have more than a hundred levels
        self._client = _Client(get_wasm_path())
        language = options_pb2.LanguageOptionsProto(
            product_mode=language_pb2.PRODUCT_EXTERNAL,
            enabled_language_features=[language_pb2.LanguageFeature.Value(f"FEATURE_{name}") for name in FEATURES],
            reserved_keywords=["QUALIFY"],
            supported_statement_kinds=[
                value for name, value in resolved_node_kind_pb2.ResolvedNodeKind.items() if name.endswith("_STMT")
            ],
        )
        self._language = language
        self._options = options_pb2.AnalyzerOptionsProto(
            language_options=language,
            error_message_mode=options_pb2.AnalyzerOptionsProto.DESCRIPTOR.fields_by_name["error_message_mode"]
            .enum_type.values_by_name["ERROR_MESSAGE_ONE_LINE"]
            .number,
        )
        self.set_time_zone("UTC")
        self.tables: dict[str, Table] = {}
        self._view_rows: dict[str, list[Any]] = {}
        self._execute: dict[str, Callable[[str, str, Any], Result]] = {
            "CREATE_TABLE": self._create_table,
            "CREATE_TABLE_AS_SELECT": self._create_table_as_select,
            "CREATE_VIEW": self._create_view,
            "INSERT": self._insert,
            "DELETE": self._delete,
            "MERGE": self._merge,
            "CREATE_SCHEMA": self._change_nothing,
            "ALTER_TABLE_SET_OPTIONS": self._change_nothing,
        }

    def set_time_zone(self, name: str) -> None:
        """Set the time zone of times without one, like a project's default_time_zone."""
        self._options.default_timezone = name

    def run(self, sql: str, parameters: Mapping[str, tuple[Any, Any]] | None = None) -> Result:
        """Analyze a statement, then execute it. Scripts (several statements, DECLARE) are rejected.

        Args:
            parameters: name of a query parameter, without the @, to its TypeProto and ValueProto.

        Raises:
            GoogleSQLError: when the analyzer rejects it, or it cannot be executed.
        """
        if QUERY.match(sql):
            columns, rows = self._evaluate(sql, parameters=parameters)
            return Result("SELECT", columns, rows)
        kind, statement = self.analyze(sql)
        execute = self._execute.get(kind)
        if execute is None:
            raise GoogleSQLError(f"{kind} is analyzed, but cannot be executed here", sql)
        self._view_rows.clear()
        return execute(kind, sql, statement)

    def insert(self, name: str, rows: list[Any]) -> None:
        """Add rows to a table.

        Raises:
            GoogleSQLError: if a required value is null.
        """
        self._write(self.tables[name], rows, "")
        self._view_rows.clear()

    def drop(self, name: str) -> None:
        """Drop a table or view, if it exists."""
        self.tables.pop(name, None)
        self._view_rows.clear()

    def analyze(self, sql: str) -> tuple[str, Any]:
        """The kind of the statement and its resolved form.

        Raises:
            GoogleSQLError: when the analyzer rejects it.
        """
        request = service.AnalyzeRequest(
            options=self._options, simple_catalog=self._nested_catalog(sql), sql_statement=sql
        )
        node = concrete(self._call("Analyze", request, service.AnalyzeResponse, sql).resolved_statement)
        kind = node.DESCRIPTOR.name.removeprefix("Resolved").removesuffix("Proto").removesuffix("Stmt")
        kind = re.sub(r"(?<!^)(?=[A-Z])", "_", kind).upper()
        return ("SELECT" if kind == "QUERY" else kind), node

    def _call(self, method: str, request: Any, response: Any, sql: str) -> Any:
        try:
            return self._client.call_grpc_func(f"ZetaSqlLocalService_{method}", request, response)
        except ServerError as error:
            raise GoogleSQLError(re.sub(r"^Code: \d+, Message: ", "", error.raw_error), sql) from error

    def _empty_catalog(self) -> Any:
        catalog = simple_catalog_pb2.SimpleCatalogProto()
        catalog.builtin_function_options.language_options.CopyFrom(self._language)
        for alias in INTEGER_ALIASES:
            catalog.named_type.add(name=alias).type.type_kind = type_pb2.TYPE_INT64
        return catalog

    def _nested_catalog(self, sql: str) -> Any:
        """A catalog of the tables that a statement names, by project and dataset."""
        catalog = self._empty_catalog()
        parents: dict[str, Any] = {}
        for name in names_in(sql):
            if name not in self.tables:
                continue
            project, dataset, identifier = name.split(".")
            if project not in parents:
                parents[project] = catalog.catalog.add(name=project)
            if (path := f"{project}.{dataset}") not in parents:
                parents[path] = parents[project].catalog.add(name=dataset)
            table = _table_proto(identifier, self.tables[name].columns)
            table.full_name = name
            parents[path].table.append(table)
        return catalog

    def _evaluate(
        self,
        sql: str,
        extra: dict[str, Table] | None = None,
        parameters: Mapping[str, tuple[Any, Any]] | None = None,
    ) -> tuple[dict[str, Any], list[Any]]:
        request = service.EvaluateQueryRequest(sql=with_flat_names(sql), options=self._options)
        self._add_tables(request, sql, extra or {})
        for name, (type_, value) in (parameters or {}).items():
            request.options.query_parameters.add(name=name, type=type_)
            request.params.add(name=name, value=value)
        response = self._call("EvaluateQuery", request, service.EvaluateQueryResponse, sql)
        columns = {column.name or f"f{place}_": column.type for place, column in enumerate(response.prepared.columns)}
        if len(columns) < len(response.prepared.columns):
            raise GoogleSQLError("Duplicate column names in the result are not supported", sql)
        return columns, list(response.content.table_data.row)

    def _add_tables(self, request: Any, sql: str, extra: dict[str, Table]) -> None:
        """Add the tables that a query names, with their rows, which only the top of the catalog may have."""
        request.simple_catalog.CopyFrom(self._empty_catalog())
        named = {name: self.tables[name] for name in names_in(sql) if name in self.tables}
        for name, table in (named | extra).items():
            request.simple_catalog.table.append(_table_proto(name, table.columns))
            request.table_content[name].table_data.row.extend(self._rows(name, table))

    def _rows(self, name: str, table: Table) -> list[Any]:
        if table.view is None:
            return table.rows
        if name not in self._view_rows:
            self._view_rows[name] = self._evaluate(table.view)[1]
        return self._view_rows[name]

    def _parse(self, sql: str) -> Any:
        request = service.ParseRequest(sql_statement=sql, options=self._language)
        return concrete(self._call("Parse", request, service.ParseResponse, sql).parsed_statement)

    # Statements by kind. Each method gets the resolved statement of the analyzer.

    def _change_nothing(self, kind: str, sql: str, statement: Any) -> Result:
        return Result(kind)

    def _create_table(self, kind: str, sql: str, statement: Any) -> Result:
        name = created_name(statement)
        base = statement.parent
        if name not in self.tables:
            self.tables[name] = _defined(base.column_definition_list)
        return Result(kind)

    def _create_table_as_select(self, kind: str, sql: str, statement: Any) -> Result:
        name = created_name(statement)
        _, rows = self._evaluate(text_of(sql, self._parse(sql).query))
        table = _defined(statement.parent.column_definition_list)
        self.tables[name] = table
        self._write(table, rows, sql)
        return Result(kind, affected=len(rows))

    def _create_view(self, kind: str, sql: str, statement: Any) -> Result:
        name = created_name(statement)
        columns = {column.name: column.column.type for column in statement.parent.output_column_list}
        self.tables[name] = Table(columns, view=text_of(sql, self._parse(sql).parent.query))
        return Result(kind)

    def _insert(self, kind: str, sql: str, statement: Any) -> Result:
        request = service.EvaluateModifyRequest(sql=with_flat_names(sql), options=self._options)
        self._add_tables(request, sql, {})
        response = self._call("EvaluateModify", request, service.EvaluateModifyResponse, sql)
        rows = [_row(row.cell) for row in response.content]
        self._write(self.tables[response.table_name], rows, sql)
        return Result(kind, affected=len(rows))

    def _delete(self, kind: str, sql: str, statement: Any) -> Result:
        parsed = self._parse(sql)
        target = text_of(sql, parsed.target_path)
        alias = parsed.alias.identifier.id_string or "deleted_from"
        table = self.tables[names_in(target)[0]]
        condition = text_of(sql, parsed.where)
        before = len(table.rows)
        _, table.rows = self._evaluate(
            f"select {alias}.* from {target} as {alias} where not coalesce(({condition}), false)"
        )
        return Result(kind, affected=before - len(table.rows))

    def _merge(self, kind: str, sql: str, statement: Any) -> Result:
        """Query the rows that each clause matches: the reference implementation has no MERGE."""
        parsed = self._parse(sql)
        alias = parsed.alias.identifier.id_string
        table = self.tables[names_in(text_of(sql, parsed.target_path))[0]]
        names = list(table.columns)
        source = text_of(sql, parsed.table_expression)
        condition = text_of(sql, parsed.merge_condition)
        row_number = type_pb2.TypeProto(type_kind=type_pb2.TYPE_INT64)
        numbered = Table(
            table.columns | {"_row": row_number},
            rows=[_row([*row.cell, _number(number)]) for number, row in enumerate(table.rows)],
        )
        extra = {"merge target": numbered}
        inserted: list[Any] = []
        updated: dict[int, Any] = {}
        for clause in parsed.when_clauses.clause_list:
            also = (
                f"({text_of(sql, clause.search_condition)})" if clause.search_condition.WhichOneof("node") else "true"
            )
            if clause.action.update_item_list.update_items:
                values = {
                    text_of(sql, item.set_value.path).split(".")[-1].strip("`"): text_of(sql, item.set_value.value)
                    for item in clause.action.update_item_list.update_items
                }
                _, matches = self._evaluate(
                    f"select {alias}._row, {', '.join(values.values())} from `merge target` as {alias} "
                    f"inner join {source} on {condition} where {also}",
                    extra,
                )
                for match in matches:
                    number = match.cell[0].int64_value
                    if number in updated:
                        raise GoogleSQLError("UPDATE/MERGE must match at most one source row for each target row", sql)
                    cells = dict(zip(names, table.rows[number].cell, strict=True))
                    cells.update(zip(values, match.cell[1:], strict=True))
                    updated[number] = _row(cells.values())
            else:
                columns = [column.id_string for column in clause.action.insert_column_list.identifiers]
                values_text = [text_of(sql, value) for value in clause.action.insert_row.values]
                _, missing = self._evaluate(
                    f"select {', '.join(values_text)} from {source} where {also} and not exists "
                    f"(select 1 from `merge target` as {alias} where {condition})",
                    extra,
                )
                for row in missing:
                    cells = dict(zip(columns, row.cell, strict=True))
                    inserted.append(_row(cells.get(name, _null()) for name in names))
        _require(table, [*updated.values(), *inserted], sql)
        table.rows = [updated.get(number, row) for number, row in enumerate(table.rows)] + inserted
        return Result(kind, affected=len(updated) + len(inserted))

    def _write(self, table: Table, rows: list[Any], sql: str) -> None:
        _require(table, rows, sql)
        table.rows.extend(rows)


def _require(table: Table, rows: list[Any], sql: str) -> None:
    for number, name in enumerate(table.columns):
        if name in table.required and any(row.cell[number].WhichOneof("value") is None for row in rows):
            raise GoogleSQLError(f"Required field {name} cannot be null", sql)


def _defined(definitions: Iterable[Any]) -> Table:
    columns = {column.name: column.type for column in definitions}
    return Table(columns, required={column.name for column in definitions if column.annotations.not_null})


def _table_proto(name: str, columns: dict[str, Any]) -> Any:
    return simple_table_pb2.SimpleTableProto(
        name=name,
        column=[
            simple_table_pb2.SimpleColumnProto(name=column, type=type_, is_writable_column=True)
            for column, type_ in columns.items()
        ],
    )


def _row(cells: Iterable[Any]) -> Any:
    row = service.TableData.Row()
    row.cell.extend(cells)
    return row


def _null() -> Any:
    return service.TableData.Row().cell.add()


def _number(number: int) -> Any:
    cell = _null()
    cell.int64_value = number
    return cell
