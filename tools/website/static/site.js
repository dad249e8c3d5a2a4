// A button that opens or closes the code of all cells; the choice is remembered.
document.addEventListener("DOMContentLoaded", () => {
  const folded = [...document.querySelectorAll("div.cell details.hide")];
  const title = document.querySelector(".bd-article h1");
  if (!folded.length || !title) return;
  const remembered = { get: () => { try { return localStorage.code; } catch { return undefined; } },
    set: value => { try { localStorage.code = value; } catch { /* a browser that keeps nothing */ } } };
  const button = document.createElement("button");
  button.className = "all-code";
  button.type = "button";
  const show = open => {
    for (const one of folded) one.open = open;
    button.textContent = open ? "fold all code" : "show all code";
    button.setAttribute("aria-pressed", String(open));
  };
  button.onclick = () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    remembered.set(open ? "open" : "folded");
    show(open);
  };
  title.before(button);
  show(remembered.get() === "open");
});

// A picture that is linked opens; Sphinx's links to files save them instead, with an icon that says so.
document.addEventListener("DOMContentLoaded", () => {
  for (const link of document.querySelectorAll('a.download[href$=".png"]')) {
    link.removeAttribute("download");
    for (const part of [link, ...link.querySelectorAll(".download")]) part.classList.remove("download");
  }
});
