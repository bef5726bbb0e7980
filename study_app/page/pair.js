// The pair and its three answers. One answer is sent for each token, and none before both pictures have stood on a
// visible page for the minimum time. What counts is decided by the server alone.

const ANSWER_MS = 12000; // without an answer for so long, the buttons work again; the server knows what it has
const PROBE_MS = 4000; // for a look whether the server can be reached, where no answer came, and between two of them
const PROBES = 6; // at once: a browser keeps as many connections to a server, and all of them may be dead
const ENLARGE = 3; // small pictures are shown at most so many times as wide
const MIN_PX = 576; // the pair is that wide at least, where the window is
const RELOAD_MS = 2000; // between two attempts to load a picture
const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "equal" };
const pages = new WeakMap();

class Page {
  constructor(root) {
    this.root = root.querySelector(".study");
    this.token = null; // of the pair on the screen
    this.shown_at = null; // when it first stood there, visible
    this.ready = false;
    this.show_number = 0;
    this.remaining = null; // of the minimum exposure, in ms; null before there is a pair and after it was voted on
    this.choices = [...this.root.querySelectorAll(".choice")];
    this.pictures = this.choices.slice(0, 2).map((choice) => choice.querySelector("img"));
    for (const choice of this.choices) {
      choice.addEventListener("click", (event) => {
        // the second click of a double click was aimed at the pair before
        if (event.detail < 2) this.vote(choice.dataset.choice, this.input(event));
      });
      choice.addEventListener("keydown", (event) => event.repeat && event.preventDefault());
    }
    this.on_key = (event) => this.key(event);
    this.on_visible = () => this.expose();
  }

  listen() {
    window.addEventListener("keydown", this.on_key);
    document.addEventListener("visibilitychange", this.on_visible);
  }

  leave() {
    window.removeEventListener("keydown", this.on_key);
    document.removeEventListener("visibilitychange", this.on_visible);
  }

  input(event) {
    if (event.detail === 0) return "key";
    return event.pointerType === "touch" || event.pointerType === "pen" ? "touch" : "mouse";
  }

  key(event) {
    const choice = KEYS[event.key];
    if (!choice || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const target = event.composedPath()[0];
    if (target.closest?.("input, textarea, select, [contenteditable], [role=dialog], [role=listbox]")) return;
    event.preventDefault(); // the arrows must not scroll the pictures away
    if (!event.repeat) this.vote(choice, "key");
  }

  async show(data) {
    const number = ++this.show_number;
    this.data = data;
    this.ready = false;
    this.remaining = null;
    this.root.classList.remove("ready");
    this.root.classList.add("loading");
    clearTimeout(this.answer_timer);
    clearTimeout(this.probe_timer);
    clearTimeout(this.expose_timer);
    const [left, right] = await Promise.all([data.left, data.right].map((name) => this.load(name, number)));
    if (number !== this.show_number) return; // another pair has come meanwhile
    this.token = data.token;
    this.root.style.setProperty("--ratio", data.width / data.height);
    this.root.style.setProperty("--most", `${Math.max(MIN_PX, 2 * ENLARGE * data.width)}px`);
    this.pictures[0].src = left;
    this.pictures[1].src = right;
    await Promise.all(this.pictures.map((picture) => picture.decode().catch(() => {})));
    if (number !== this.show_number) return;
    for (const choice of this.choices) {
      choice.classList.remove("chosen");
      choice.setAttribute("aria-disabled", "true");
    }
    this.text(".title", data.title);
    this.text(".who", data.who);
    this.text(".prompt p", data.prompt);
    const prompt = this.root.querySelector(".prompt");
    prompt.classList.toggle("long", data.prompt.length > 120);
    prompt.scrollTop = 0;
    if (prompt.scrollHeight > prompt.clientHeight) prompt.setAttribute("tabindex", "0");
    else prompt.removeAttribute("tabindex");
    const progress = data.votes < data.target ? `Pair ${data.votes + 1} of ${data.target}` : `${data.votes} votes`;
    this.text(".count", progress);
    const track = this.root.querySelector(".track");
    track.setAttribute("aria-valuemax", data.target);
    track.setAttribute("aria-valuenow", Math.min(data.votes, data.target));
    track.firstElementChild.style.width = `${Math.min(100, (100 * data.votes) / data.target)}%`;
    this.text(".status", data.note || "");
    this.root.classList.remove("loading");
    this.remaining = data.exposure_ms;
    this.visible_since = null;
    this.shown_at = null;
    this.expose();
  }

  // Runs the minimum exposure on while the page can be seen.
  expose() {
    if (this.ready || this.root.classList.contains("loading") || this.remaining === null) return;
    clearTimeout(this.expose_timer);
    const now = performance.now();
    if (this.visible_since !== null) this.remaining -= now - this.visible_since;
    this.visible_since = null;
    if (document.visibilityState !== "visible") return;
    this.visible_since = now;
    this.shown_at ??= now;
    this.expose_timer = setTimeout(() => this.open(), Math.max(0, this.remaining));
  }

  open() {
    this.ready = true;
    this.root.classList.add("ready");
    for (const choice of this.choices) choice.removeAttribute("aria-disabled");
  }

  vote(choice, input) {
    if (!this.ready) return;
    this.ready = false;
    this.root.classList.remove("ready");
    for (const button of this.choices) {
      button.classList.toggle("chosen", button.dataset.choice === choice);
      button.setAttribute("aria-disabled", "true");
    }
    this.send("vote", {
      token: this.token,
      choice,
      input,
      ms: Math.round(performance.now() - this.shown_at),
      width: window.innerWidth,
    });
    this.remaining = null;
    clearTimeout(this.answer_timer);
    this.answer_timer = setTimeout(() => {
      this.text(".status", "No answer from the server yet. Please choose again, or reload the page.");
      this.open();
      this.restart();
    }, ANSWER_MS);
  }

  // A connection can die without a word, and then never answers. A server that answers a new one has every vote it
  // acknowledged: the page is loaded again, once for a pair, as a server that is only slow needs no more to do.
  async restart() {
    const asked = this.token;
    if (sessionStorage.getItem("restarted") === asked) return;
    const probe = (number) =>
      fetch(`./_stcore/health?${number}`, { cache: "no-store", signal: AbortSignal.timeout(PROBE_MS) })
        .then((response) => response.ok)
        .catch(() => false);
    const reached = (await Promise.all([...Array(PROBES).keys()].map(probe))).every(Boolean);
    if (this.token !== asked || !this.root.isConnected) return; // the answer has come
    if (!reached) {
      this.probe_timer = setTimeout(() => this.restart(), PROBE_MS);
      return;
    }
    sessionStorage.setItem("restarted", asked);
    location.reload();
  }

  load(name, number) {
    return new Promise((resolve) => {
      const picture = new Image();
      const url = `./pictures/${name}`;
      picture.onload = () => picture.decode().catch(() => {}).then(() => resolve(url));
      picture.onerror = () => {
        if (number !== this.show_number) return;
        this.text(".status", "A picture could not be loaded. Trying again.");
        setTimeout(() => (picture.src = `${url}?${Date.now()}`), RELOAD_MS);
      };
      picture.src = url;
    });
  }

  text(selector, value) {
    this.root.querySelector(selector).textContent = value;
  }
}

export default function ({ data, parentElement, setTriggerValue }) {
  let page = pages.get(parentElement);
  if (!page) pages.set(parentElement, (page = new Page(parentElement)));
  page.send = setTriggerValue;
  page.listen();
  if (data.shown !== page.shown) {
    page.shown = data.shown;
    page.show(data);
  }
  return () => page.leave();
}
