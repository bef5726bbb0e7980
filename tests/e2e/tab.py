"""A participant's tab on the page, in a real browser."""

from study_server import StudyServer


class Tab:
    """A participant's tab on the page."""

    def __init__(self, page, server: StudyServer) -> None:
        self.page = page
        self.server = server

    def open(self, query: str = "") -> None:
        """Go to the page, consent where asked, and wait for a pair that can be answered."""
        self.page.goto(f"{self.server.url}/{query}")
        agree = self.page.get_by_role("button", name="I agree")
        agree.or_(self.page.locator(".study")).first.wait_for(timeout=60_000)
        if agree.count():
            agree.click()
        self.ready()

    def ready(self) -> None:
        self.page.locator(".study.ready").wait_for(timeout=60_000)

    def count(self) -> int:
        """Votes that the page shows as given."""
        return int(self.page.locator(".track").get_attribute("aria-valuenow") or "0")

    def answered(self, before: int) -> None:
        """Wait until the page shows one vote more."""
        wanted = f".track[aria-valuenow='{before + 1}']"
        self.page.locator(wanted).wait_for(timeout=60_000, state="attached")

    def prompt(self) -> str:
        return self.page.locator("#prompt").inner_text()

    def who(self) -> str:
        return self.page.locator(".who").inner_text().removeprefix("You are ")

    def votes(self) -> list:
        """This participant's votes in the store, in order, with how long their pair had been there."""
        return self.server.rows(
            "SELECT a.seq, v.choice, v.input, v.response_ms, v.viewport FROM vote v "
            "JOIN assignment a ON a.id = v.assignment JOIN participant p ON p.id = v.participant "
            "WHERE p.pseudonym = :who ORDER BY a.seq",
            who=self.who(),
        )

    def settled(self) -> None:
        """Long enough for a stray vote to have arrived."""
        self.ready()
        self.page.wait_for_timeout(700)
