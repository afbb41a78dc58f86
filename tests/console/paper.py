# SPDX-License-Identifier: Apache-2.0
"""
A browser without a script: it opens pages, fills in forms and presses buttons.

Everything that a test does with it works without JavaScript. It calls the application
directly, keeps the cookies of one origin, and parses pages.
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
    """A form of a page, with its present values."""

    method: str
    action: str
    fields: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    choices: dict[tuple[str, str], None] = dataclasses.field(default_factory=dict)
    """Unticked checkboxes and radio buttons, by name and value."""
    buttons: list[Button] = dataclasses.field(default_factory=list)
    disabled: bool = False

    def value(self, name: str) -> str:
        """Return the value of a field."""
        return next(value for each, value in self.fields if each == name)

    def values(self, name: str) -> list[str]:
        """Return the values of all fields of a name."""
        return [value for each, value in self.fields if each == name]


class _Reader(HTMLParser):
    """Parses forms and text of a page."""

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
        self._area = ""
        self._typed: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if "id" in attributes:
            assert attributes["id"] not in self.ids, (
                f"two elements of id {attributes['id']}"
            )
            self.ids.add(attributes["id"])
        assert not any(name.startswith("on") for name in attributes), "inline script"
        assert "style" not in attributes, "inline style"
        self._start(tag, attributes)

    def _start(self, tag: str, attributes: dict[str, str]) -> None:  # noqa: C901
        match tag:
            case "form":
                self._form = Form(
                    attributes.get("method", "get"), attributes.get("action", self.path)
                )
                self.forms.append(self._form)
            case "fieldset" if self._form and "disabled" in attributes:
                self._form.disabled = True
            case "input":
                self._input(attributes)
            case "textarea":
                self._area, self._typed = attributes["name"], []
            case "select":
                self._select, self._chosen, self._first = attributes["name"], None, None
            case "option":
                self._option = (attributes.get("value"), "selected" in attributes)
            case "button":
                self._button = Button(
                    "", attributes.get("name", ""), attributes.get("value", "")
                )
                if self._form and attributes.get("type", "submit") == "submit":
                    self._form.buttons.append(self._button)
            case "a":
                self._href = attributes.get("href", "")
            case "script" | "style":
                assert tag == "script", "inline style"
                assert attributes["src"].startswith("/static/")
                self._silent += 1

    def _input(self, attributes: dict[str, str]) -> None:
        if self._form is None or not (name := attributes.get("name")):
            return
        value = attributes.get("value", "")
        if attributes.get("type") in ("checkbox", "radio"):
            value = attributes.get("value", "on")
            if "checked" not in attributes:
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
            case "textarea":
                if self._form:
                    self._form.fields.append((self._area, "".join(self._typed)))
                self._area = ""

    def handle_data(self, text: str) -> None:
        if self._silent:
            assert not text.strip(), "inline script"
        if self._area:
            self._typed.append(text)
            return
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
    """A page, as answered by the console."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.path = urlsplit(str(response.url)).path
        self._reader = _Reader(self.path)
        if response.headers["content-type"].startswith("text/html"):
            self._reader.feed(response.text)

    @property
    def text(self) -> str:
        """The visible text."""
        return " ".join(self._reader.words)

    @property
    def links(self) -> dict[str, str]:
        """Addresses of links, by their text."""
        return self._reader.links

    def form(self, action: str, button: str = "") -> Form:
        """Return the form with an action, and with a button if one is given."""
        return next(
            form
            for form in self._reader.forms
            if form.action == action
            and (not button or any(each.words == button for each in form.buttons))
        )

    @property
    def every_form(self) -> list[Form]:
        """The forms."""
        return self._reader.forms

    @property
    def forms(self) -> list[str]:
        """Actions of the forms."""
        return [form.action for form in self._reader.forms]

    @property
    def buttons(self) -> set[str]:
        """Labels of the enabled buttons."""
        return {
            button.words
            for form in self._reader.forms
            if not form.disabled
            for button in form.buttons
        }

    @property
    def codes(self) -> list[str]:
        """The tokencodes on the page."""
        for form in self._reader.forms:
            if codes := form.values("code"):
                return codes
        return []


class Paper:
    """A browser without a script."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        # What a browser states of a form that this console has served.
        client.headers["sec-fetch-site"] = "same-origin"
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
        """Fill in a form of this page and press a button."""
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
