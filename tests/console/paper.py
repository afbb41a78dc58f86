# SPDX-License-Identifier: Apache-2.0
"""
A browser without a script: it opens pages, fills in forms and presses buttons.

What a test does with it works without JavaScript. It talks to the application
itself, with the cookies of one origin, and knows what a page holds.
"""

import dataclasses
from html.parser import HTMLParser
from urllib.parse import urlsplit

import httpx

VOID = {"br", "hr", "img", "input", "link", "meta"}


@dataclasses.dataclass
class Button:
    """A button that sends a form."""

    words: str
    name: str
    value: str


@dataclasses.dataclass
class Form:
    """A form as it stands on the page."""

    method: str
    action: str
    fields: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    choices: dict[tuple[str, str], None] = dataclasses.field(default_factory=dict)
    """Boxes and circles that are not ticked, by name and value."""
    buttons: list[Button] = dataclasses.field(default_factory=list)
    disabled: bool = False

    def value(self, name: str) -> str:
        """Return what a field holds."""
        return next(value for each, value in self.fields if each == name)

    def values(self, name: str) -> list[str]:
        """Return what all fields of that name hold."""
        return [value for each, value in self.fields if each == name]


class _Reader(HTMLParser):
    """Reads forms and words of a page."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.forms: list[Form] = []
        self.words: list[str] = []
        self.links: dict[str, str] = {}
        self.ids: set[str] = set()
        self._form: Form | None = None
        self._button: Button | None = None
        self._select = ""
        self._chosen: str | None = None
        self._first: str | None = None
        self._option: tuple[str | None, bool] | None = None
        self._href = ""
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if "id" in given:
            assert given["id"] not in self.ids, f"two elements of id {given['id']}"
            self.ids.add(given["id"])
        assert not any(name.startswith("on") for name in given), "inline script"
        assert "style" not in given, "inline style"
        self._start(tag, given)

    def _start(self, tag: str, given: dict[str, str]) -> None:  # noqa: C901
        match tag:
            case "form":
                self._form = Form(
                    given.get("method", "get"), given.get("action", self.path)
                )
                self.forms.append(self._form)
            case "fieldset" if self._form and "disabled" in given:
                self._form.disabled = True
            case "input":
                self._input(given)
            case "textarea":
                raise AssertionError("a kind of field that this browser does not know")
            case "select":
                self._select, self._chosen, self._first = given["name"], None, None
            case "option":
                self._option = (given.get("value"), "selected" in given)
            case "button":
                self._button = Button("", given.get("name", ""), given.get("value", ""))
                if self._form and given.get("type", "submit") == "submit":
                    self._form.buttons.append(self._button)
            case "a":
                self._href = given.get("href", "")
            case "script" | "style":
                assert tag == "script", "inline style"
                assert given["src"].startswith("/static/")
                self._silent += 1

    def _input(self, given: dict[str, str]) -> None:
        if self._form is None or not (name := given.get("name")):
            return
        value = given.get("value", "")
        if given.get("type") in ("checkbox", "radio"):
            value = given.get("value", "on")
            if "checked" not in given:
                self._form.choices[name, value] = None
                return
        self._form.fields.append((name, value))

    def handle_endtag(self, tag: str) -> None:
        match tag:
            case "form":
                self._form = None
            case "button":
                self._button = None
            case "a":
                self._href = ""
            case "option" if self._option:
                self._option = None
            case "select":
                if self._form:
                    chosen = self._first if self._chosen is None else self._chosen
                    self._form.fields.append((self._select, chosen or ""))
                self._select = ""
            case "script":
                self._silent -= 1

    def handle_data(self, text: str) -> None:
        if self._silent:
            assert not text.strip(), "inline script"
        if self._option:
            value = text if self._option[0] is None else self._option[0]
            if self._first is None:
                self._first = value
            if self._option[1]:
                self._chosen = value
            return
        if text.strip():
            self.words.append(" ".join(text.split()))
        if self._button is not None:
            self._button.words += text.strip()
        if self._href and text.strip():
            self.links.setdefault(" ".join(text.split()), self._href)


class Page:
    """A page that was answered."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.path = urlsplit(str(response.url)).path
        self._reader = _Reader(self.path)
        if response.headers["content-type"].startswith("text/html"):
            self._reader.feed(response.text)

    @property
    def text(self) -> str:
        """What one reads on it."""
        return " ".join(self._reader.words)

    @property
    def links(self) -> dict[str, str]:
        """Where its links lead, by their words."""
        return self._reader.links

    def form(self, action: str, button: str = "") -> Form:
        """Return the form that is sent there, or that of them with the button."""
        return next(
            form
            for form in self._reader.forms
            if form.action == action
            and (not button or any(each.words == button for each in form.buttons))
        )

    @property
    def forms(self) -> list[str]:
        """Where its forms are sent."""
        return [form.action for form in self._reader.forms]

    @property
    def buttons(self) -> set[str]:
        """What can be pressed on it."""
        return {
            button.words
            for form in self._reader.forms
            if not form.disabled
            for button in form.buttons
        }

    @property
    def codes(self) -> list[str]:
        """The tokencodes on it."""
        for form in self._reader.forms:
            if found := form.values("code"):
                return found
        return []


class Paper:
    """A browser without a script."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.page: Page

    async def open(self, path: str) -> Page:
        """Open a page."""
        return self._show(await self.client.get(path, follow_redirects=True))

    async def send(
        self,
        button: str,
        *,
        action: str = "",
        tick: dict[str, str] | None = None,
        untick: tuple[str, ...] = (),
        **typed: str,
    ) -> Page:
        """Fill in the form of this page, and press a button."""
        form = self.page.form(action or self.page.path, button)
        assert not form.disabled
        pressed = [each for each in form.buttons if each.words == button][-1]
        chosen = tick or {}
        for name in typed:
            assert form.values(name), f"there is no field {name}"
        for name, value in chosen.items():
            assert (name, value) in form.choices or value in form.values(name)
        fields = [
            (name, typed.get(name, value))
            for name, value in form.fields
            if name not in chosen and name not in untick
        ]
        fields += chosen.items()
        if pressed.name:
            fields.append((pressed.name, pressed.value))
        if form.method.lower() == "get":
            answer = await self.client.get(
                form.action, params=fields, follow_redirects=True
            )
        else:
            answer = await self.client.post(
                form.action,
                content=str(httpx.QueryParams(fields)).encode(),
                headers={"content-type": "application/x-www-form-urlencoded"},
                follow_redirects=True,
            )
        return self._show(answer)

    def _show(self, response: httpx.Response) -> Page:
        self.page = Page(response)
        return self.page

    async def sign_in(self, name: str, password: str) -> Page:
        """Sign in."""
        await self.open("/sign-in")
        return await self.send("Sign in", administrator=name, password=password)
