"""Whether a README's front matter is one the Hub takes (`POST /api/validate-yaml`, and again in a commit).

Owns the rules that evalsink's cards can break: YAML as js-yaml reads it (a key given twice is an error), `configs` with unique
names, data files in lists or strings, splits by the viewer's expression. Refuses nothing else: the Hub knows licences,
languages and tasks too, this does not.
"""

import re
from typing import Any

import yaml

_FRONT_MATTER = re.compile(r"\A\s*---[\r\n]+(.*?)[\r\n]+---(?:\r?\n|\Z)", re.DOTALL)
_SPLIT = re.compile(r"\w+(\.\w+)*", re.ASCII)
_NOT_IN_A_CONFIG_NAME = re.compile(r'[<>:/\\|?*"]')


class _OnceLoader(yaml.SafeLoader):
    """Takes no key twice."""


def _mapping(loader: _OnceLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = [key for number, key in enumerate(keys) if key in keys[:number]]
    if twice:
        raise yaml.constructor.ConstructorError(
            None, None, f"duplicated mapping key: {twice[0]}", node.start_mark
        )
    return loader.construct_mapping(node, deep=True)


_OnceLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def front_matter(readme: str) -> tuple[dict[str, Any], list[str]]:
    """The metadata, and what is wrong with it as YAML. Nothing and nothing where there is no front matter."""
    found = _FRONT_MATTER.match(readme)
    if found is None:
        return {}, []
    try:
        metadata = yaml.load(found[1], _OnceLoader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        return {}, [f"YAML Exception: {error}"]
    if metadata is None:
        return {}, []
    if not isinstance(metadata, dict):
        return {}, ["the metadata is not a mapping"]
    return metadata, []


def mistakes(readme: str) -> list[str]:
    """What the Hub would refuse; empty if nothing."""
    metadata, found = front_matter(readme)
    configs = metadata.get("configs", [])
    if not isinstance(configs, list):
        return [*found, '"configs" must be an array']
    names: list[str] = []
    for number, config in enumerate(configs):
        found += _config_mistakes(f"configs[{number}]", config, names)
    if sum(isinstance(one, dict) and one.get("default") is True for one in configs) > 1:
        found.append('only one of "configs" may be the default')
    return [*found, *_info_mistakes(metadata.get("dataset_info"))]


def _config_mistakes(where: str, config: Any, names: list[str]) -> list[str]:
    if not isinstance(config, dict):
        return [f'"{where}" must be of type object']
    name = config.get("config_name")
    if not isinstance(name, str) or not name:
        return [f'"{where}.config_name" is required']
    found = []
    if _NOT_IN_A_CONFIG_NAME.search(name):
        found.append(f'"{where}.config_name" has a character that is not allowed: {name}')
    if name in names:
        found.append(f'"{where}" contains a duplicate value: {name}')
    names.append(name)
    files = config.get("data_files", [])
    if isinstance(files, str):
        return found
    if not isinstance(files, list):
        return [*found, f'"{where}.data_files" must be an array']
    splits: list[str] = []
    for number, one in enumerate(files):
        found += _data_file_mistakes(f"{where}.data_files[{number}]", one, splits)
    return found


def _data_file_mistakes(where: str, one: Any, splits: list[str]) -> list[str]:
    if isinstance(one, str):
        return []
    if not isinstance(one, dict):
        return [f'"{where}" must be a string or an object']
    found = []
    split, path = one.get("split"), one.get("path")
    if not isinstance(split, str) or not _SPLIT.fullmatch(split):
        found.append(f'"{where}.split" fails to match the required pattern: /^\\w+(\\.\\w+)*$/ ({split!r})')
    elif split in splits:
        found.append(f'"{where}.split" contains a duplicate value: {split}')
    else:
        splits.append(split)
    paths = path if isinstance(path, list) else [path]
    if not paths or not all(isinstance(each, str) and each for each in paths):
        found.append(f'"{where}.path" must be a string or an array of strings')
    return found


def _info_mistakes(info: Any) -> list[str]:
    if info is None or isinstance(info, dict):
        return []
    if not isinstance(info, list) or not all(isinstance(one, dict) for one in info):
        return ['"dataset_info" must be an object or an array of objects']
    return [
        f'"dataset_info[{number}].config_name" is required'
        for number, one in enumerate(info)
        if not isinstance(one.get("config_name"), str)
    ]
