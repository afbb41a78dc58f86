# SPDX-License-Identifier: Apache-2.0
"""The search index finds people as they are heard and typed, and follows the state."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from sparecode_node.queries import search_file, search_index
from sparecode_node.queries.search_words import (
    expression_of,
    heard_expression_of,
    heard_words_of,
    matches,
    sounds_of,
)
from sparecode_node.queries.transaction import Candidates, Kind
from sparecode_node.queries.users import UserOrder
from sparecode_node.queries.views import UserView
from tests.services.one_node import OneNode, one_node

pytestmark = pytest.mark.asyncio

LIST = "UserService/ListUsers"


async def add(node: OneNode, username: str, name: str = "", email: str = "") -> None:
    await node.users.create(
        node.admin("UserService/CreateUser"),
        username=username,
        display_name=name,
        email=email,
    )


async def candidates(node: OneNode, query: str, kind: Kind = Kind.USER) -> Candidates:
    async with node.state.transaction() as transaction:
        return await transaction.find(kind, query)


async def names(node: OneNode, query: str) -> set[str]:
    keys = (await candidates(node, query)).keys
    assert keys is not None
    return set(keys)


async def sounding(node: OneNode, query: str, most: int = 50) -> tuple[UserView, ...]:
    """Return users whose names sound like a query."""
    read = await node.users.alike(
        node.admin("UserService/ListUsers"), search=query, most=most
    )
    return read.value


HEARD = {
    "Jürgen Müller": (
        *("muller", "MUELLER", "müller jür", "mu\u0308ller", "ller", "jü", "juergen"),
    ),
    "Ursula Mueller": ("ursula müller",),
    "Anna Straße": ("strasse", "anna straße"),
    "Søren Sørensen": ("sorensen", "soerensen", "SØREN"),
    "Łukasz Wójcik": ("lukasz", "wojcik"),
    "Иванов Пётр": ("ivanov", "Иванов"),
    "Nguyễn Anh": ("nguyen", "NGUYỄN"),
    "王伟": ("wangwei", "王伟"),
}
"""Names, and what is typed for each and finds no other."""


async def test_a_name_is_found_as_it_is_heard(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        for number, name in enumerate(HEARD):
            await add(node, f"user{number}", name)
        for number, (name, queries) in enumerate(HEARD.items()):
            for query in queries:
                assert matches(query, ["user", name]), (query, name)
                assert f"user{number}" in await names(node, query), (query, name)
        assert await names(node, "sorensen") == {"user3"}


SOUND = (
    ("Meier", "Maier", "Mayer", "Meyer"),
    ("Catherine Smyth", "Katherine Smith", "Kathrin Smit"),
    ("Philip", "Filip"),
    ("Stephen Schmidt", "Steven Schmitt"),
    ("Müller", "Miller"),
    ("Natalya", "Наталья"),
    ("O'Brien", "Obrian"),
)
"""Names that cannot be told apart by phone."""


async def test_a_name_is_found_by_its_sound(tmp_path: Path) -> None:
    """Each of a group finds the others, and no one of another group."""
    async with one_node(tmp_path) as node:
        for group, alike in enumerate(SOUND):
            for number, name in enumerate(alike):
                await add(node, f"{group}{number}", name)
        for group, alike in enumerate(SOUND):
            for number, name in enumerate(alike):
                found = {each.username for each in await sounding(node, name)}
                assert found == {
                    f"{group}{other}" for other in range(len(alike)) if other != number
                }, name
        for nothing in ("", "a", "12345", "x y", "zzz", "meier smith"):
            assert await sounding(node, nothing) == (), nothing


async def test_the_most_alike_come_first_and_deleted_ones_not_at_all(
    tmp_path: Path,
) -> None:
    async with one_node(tmp_path) as node:
        for name in ("Mario Moore", "Maria Mora", "Hans Meyer", "Hanna Maier"):
            await add(node, name.lower().replace(" ", "."), name)
        found = [each.username for each in await sounding(node, "meier")]
        assert found[:2] == ["hans.meyer", "hanna.maier"]
        assert {"mario.moore", "maria.mora"} == set(found[2:])
        only = await sounding(node, "meier", most=1)
        assert [each.username for each in only] == found[:1]
        await node.users.delete(
            node.admin("UserService/DeleteUser"), username="hans.meyer"
        )
        await node.users.update(
            node.admin("UserService/UpdateUser"),
            username="hanna.maier",
            display_name="Hanna Zimmer",
        )
        names = [each.username for each in await sounding(node, "hanna meier")]
        assert names == ["hanna.maier"]  # By the user name.


async def test_a_group_tells_people_with_one_name_apart(tmp_path: Path) -> None:
    """Meyer in accounting; also by sound, and the index follows a change of groups."""
    async with one_node(tmp_path) as node:
        for username, group in (("one", "accounting"), ("two", "sales")):
            await node.users.create(
                node.admin("UserService/CreateUser"),
                username=username,
                display_name="Eva Meyer",
                email="",
                join_groups=[group],
            )
        assert await names(node, "meyer accounting") == {"one"}
        alike = await sounding(node, "mayer sales")
        assert [each.username for each in alike] == ["two"]
        await node.users.update(
            node.admin("UserService/UpdateUser"),
            username="two",
            join_groups=["accounting"],
            leave_groups=["sales"],
        )
        assert await names(node, "meyer accounting") == {"one", "two"}
        assert await names(node, "sales") == set()


async def test_each_word_is_found_by_its_letters_or_by_its_sound(
    tmp_path: Path,
) -> None:
    """Müller from accounting, typed `müller acc`, may be Peter Möller."""
    async with one_node(tmp_path) as node:
        await add(node, "amueller", "Anna Müller", "am@accounting.example")
        await add(node, "pmoeller", "Peter Möller", "pm@accounting.example")
        await add(node, "smoeller", "Sven Möller", "sm@sales.example")
        await add(node, "pberg", "Peter Berg", "pb@accounting.example")
        await node.users.create(
            node.admin("UserService/CreateUser"),
            username="jmiller",
            display_name="Jo Miller",
            email="",
            join_groups=["accounting"],
        )
        for query, expected in {
            "müller acc": {"pmoeller", "jmiller"},
            "acc muller": {"pmoeller", "jmiller"},
            "pete müller accounting": {"pmoeller"},
            "p müller": {"pmoeller"},
            "müller sale": {"smoeller"},
            "müller 4": set(),
            "anna müller": set(),
        }.items():
            found = {each.username for each in await sounding(node, query)}
            assert found == expected, query
        assert await names(node, "müller acc") == {"amueller"}
        ranked = [each.username for each in await sounding(node, "mueller acc")]
        assert ranked == ["pmoeller", "jmiller"]


async def test_words_by_letters_and_by_sound_are_combined_by_the_index(
    tmp_path: Path,
) -> None:
    """Not user by user: in a million many sound like one word and have another."""
    file = search_file.IndexFile(tmp_path / "search.db")
    sound, query = "".join(sounds_of("moller")), "muller acc"
    users = [
        search_file.Entry(Kind.USER, f"user{number}", text)
        for number, text in enumerate([f" moller{sound}", " berg accounting"] * 1000)
    ]
    one = search_file.Entry(Kind.USER, "peter", f" moller accounting{sound}")
    file.change([*users, one], None)
    thousands = 0

    def count() -> None:
        nonlocal thousands
        thousands += 1

    file._db().set_progress_handler(count, 1000)
    matches = file.sounding(heard_expression_of(query), heard_words_of(query))
    file.close()
    assert matches == ("peter",)
    assert thousands < 5


async def test_each_word_must_match_and_a_short_one_begins_a_word(
    tmp_path: Path,
) -> None:
    async with one_node(tmp_path) as node:
        await add(node, "one", "Anna Berg", "anna@corp.example")
        await add(node, "two", "Anna Adler", "ab@corp.example")
        assert await names(node, "anna be") == {"one"}
        assert await names(node, "anna ab") == {"two"}
        assert await names(node, "anna corp") == {"one", "two"}
        assert await names(node, "erg") == {"one"}
        assert await names(node, 'anna"') == set()
        assert await names(node, "anna* OR") == set()


async def test_the_index_follows_every_change(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        await add(node, "alice", "Alice Adams")
        assert await names(node, "adams") == {"alice"}
        await node.users.update(
            node.admin("UserService/UpdateUser"),
            username="alice",
            display_name="Alice Zimmer",
        )
        assert await names(node, "adams") == set()
        assert await names(node, "zimmer") == {"alice"}
        await node.users.delete(node.admin("UserService/DeleteUser"), username="alice")
        assert await names(node, "zimmer") == set()
        await node.enroll("000123456789")
        found = await candidates(node, "2345", Kind.TOKEN)
        assert found.keys == ("000123456789",)
        await node.tokens.delete(
            node.admin("TokenService/DeleteToken"), serial="000123456789"
        )
        assert (await candidates(node, "2345", Kind.TOKEN)).keys == ()


async def test_a_search_for_users_reads_no_matching_tokens(tmp_path: Path) -> None:
    """Digits are in many serials: a search for users with them must not take longer."""
    file = search_file.IndexFile(tmp_path / "search.db")
    tokens = [
        search_file.Entry(Kind.TOKEN, f"{number:012}", f"{number:012}")
        for number in range(1000)
    ]
    users = [
        search_file.Entry(Kind.USER, f"user{number}", f"user{number}")
        for number in range(1000)
    ]
    users.append(search_file.Entry(Kind.USER, "alice", "alice 000000"))
    file.change([*tokens, *users], None)
    thousands = 0

    def count() -> None:
        nonlocal thousands
        thousands += 1

    file._db().set_progress_handler(count, 1000)
    matches = file.find(Kind.USER, expression_of("000000"), [["000000"]])
    file.close()
    assert matches == ("alice",)
    assert thousands < 5


async def test_a_rename_that_waited_for_an_approval_is_followed(
    tmp_path: Path,
) -> None:
    """The event names the user, although another command decided it (U1)."""
    async with one_node(tmp_path) as node:
        await add(node, "alice", "Alice Adams")
        assert await names(node, "adams") == {"alice"}
        node.local_db.execute("UPDATE users SET display_name = 'Alice Zimmer'")
        node.local_db.execute(
            "INSERT INTO audit_events SELECT sequence + 1, at_ms, actor, node, "
            "'UpdateUser', 'alice', 'applied', '', '', hash FROM audit_events "
            "ORDER BY sequence DESC LIMIT 1"
        )
        node.local_db.commit()
        assert await names(node, "zimmer") == {"alice"}


async def test_a_large_state_is_indexed_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then only the beginnings of names are compared: no search reads all."""
    monkeypatch.setattr(search_index, "SMALL", 3)
    monkeypatch.setattr(search_index, "CHUNK", 2)
    monkeypatch.setattr(search_index, "FOLLOW_MAX", 2)
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await add(node, f"late{len(rests)}", "Later Person")

    async with one_node(tmp_path) as node:
        for number in range(7):
            await add(node, f"user{number}", f"Person {number}")
        assert await candidates(node, "person") == Candidates(keys=None, by_prefix=True)
        page = await node.users.find(node.admin(LIST), search="user3")
        assert [user.username for user in page.value.items] == ["user3"]
        await node.state.search.catch_up(node.state.transaction, rest)
        assert len(rests) >= 4
        found = await names(node, "person")
        assert found == {f"user{n}" for n in range(7)} | {
            f"late{n + 1}" for n in range(len(rests))
        }


async def test_an_index_of_another_history_is_built_again(tmp_path: Path) -> None:
    """As after a restore; and a file that is no index is replaced."""
    async with one_node(tmp_path) as node:
        await add(node, "alice", "Alice Adams")
        assert await names(node, "adams") == {"alice"}
    path = tmp_path / "local-search.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE position SET hash = x'00'")
        db.execute("UPDATE user_entries SET key = 'bob'")
        db.commit()
    (tmp_path / "other").mkdir()
    async with one_node(tmp_path / "other") as node:
        await add(node, "carol", "Carol Adams")
        path.rename(tmp_path / "other" / "local-search.db")
        assert await names(node, "adams") == {"carol"}
    path = tmp_path / "other" / "local-search.db"
    assert path.stat().st_mode & 0o077 == 0
    (tmp_path / "third").mkdir()
    (tmp_path / "third" / "local-search.db").write_bytes(b"no database" * 1000)
    async with one_node(tmp_path / "third") as node:
        await add(node, "dora", "Dora Adams")
        assert await names(node, "adams") == {"dora"}


async def test_a_search_works_without_the_index(tmp_path: Path) -> None:
    """As on a full disk: the users of a small state are then compared one by one."""
    (tmp_path / "local-search.db").mkdir()
    async with one_node(tmp_path) as node:
        await add(node, "jm", "Jürgen Müller")
        await add(node, "al", "Alice")
        page = await node.users.find(node.admin(LIST), search="muller")
        assert [user.username for user in page.value.items] == ["jm"]


async def test_searches_at_once_are_all_answered(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        for number in range(5):
            await add(node, f"user{number}", f"Person {number}")
        answers = await asyncio.gather(
            *(
                node.users.find(node.admin(LIST), search=f"user{n % 5}")
                for n in range(20)
            )
        )
        assert [each.value.total for each in answers] == [1] * 20


async def test_found_users_are_counted_ordered_and_paged(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        for number in range(5):
            await add(node, f"user{number}", f"Person {9 - number}")
        first = (
            await node.users.find(
                node.admin(LIST),
                search="person",
                page_size=2,
                order=UserOrder.DISPLAY_NAME,
            )
        ).value
        assert [user.username for user in first.items] == ["user4", "user3"]
        assert (first.total, first.more, first.pages) == (5, False, 3)
        last = (
            await node.users.find(
                node.admin(LIST), search="person", page_size=2, number=3
            )
        ).value
        assert [user.username for user in last.items] == ["user4"]
