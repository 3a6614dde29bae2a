import ast
from typing import Any

#: Letters of a config; python's parser takes 300 times as many bytes.
MOST_LETTERS = 1 << 20


def read_config_text(text: str) -> dict[str, Any]:
    """Read the text of a resolved config without executing it.

    The text that mmengine stores in a checkpoint consists of assignments of
    literals and ``dict(…)``; anything else is refused.

    Args:
        text: As ``Config.pretty_text`` writes it.

    Returns:
        The config as plain containers.

    Raises:
        ValueError: If it holds anything but assignments of plain values, or
            more than a million letters.
    """
    if len(text) > MOST_LETTERS:
        raise ValueError(
            f'The config text has {len(text):,} letters, more than '
            f'{MOST_LETTERS:,}.'
        )
    try:
        return _assignments(text)
    except SyntaxError as error:
        raise ValueError(f'The config text is no Python: {error}') from None
    except (MemoryError, RecursionError, TypeError):
        # So python says that a text is nested too deeply for its parser, and
        # that the key of a dictionary can be none.
        raise ValueError(
            'The config text is too deep, or a key in it can be none.'
        ) from None


def _assignments(text: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for statement in ast.parse(text).body:
        if not (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
        ):
            raise _refusal(statement)
        result[statement.targets[0].id] = _value(statement.value)
    return result


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Dict):
        keys = [_value(key) for key in node.keys if key is not None]
        if len(keys) != len(node.keys):
            raise _refusal(node)
        return dict(zip(keys, map(_value, node.values), strict=True))
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    if isinstance(node, ast.Call):
        return _dict_call(node)
    try:
        return ast.literal_eval(node)
    except ValueError:
        raise _refusal(node) from None


def _dict_call(node: ast.Call) -> dict[Any, Any]:
    is_dict = isinstance(node.func, ast.Name) and node.func.id == 'dict'
    if not is_dict or len(node.args) > 1:
        raise _refusal(node)
    result: dict[Any, Any] = {}
    # A mapping given by its place means the same as one after two stars.
    for piece in [*(ast.keyword(None, x) for x in node.args), *node.keywords]:
        value = _value(piece.value)
        if piece.arg is not None:
            result[piece.arg] = value
        elif isinstance(value, dict):
            result.update(value)
        else:
            raise _refusal(node)
    return result


def _refusal(node: ast.stmt | ast.expr) -> ValueError:
    return ValueError(
        f'The config text holds more than plain values in line {node.lineno} '
        f'and was not executed: {ast.unparse(node)[:80]!r}.'
    )
