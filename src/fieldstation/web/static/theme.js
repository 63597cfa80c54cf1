// Light, dark, or as the system says: kept in this browser, put on the page before it is painted.
(() => {
  const order = ["auto", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("fieldstation-theme") || "auto"; } catch { return "auto"; } };
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = (theme) => {
    const dark = theme === "dark" || (theme === "auto" && system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    window.Quasar?.Dark.set(dark);
    const button = document.getElementById("theme");
    if (button) button.setAttribute("aria-label", "Theme: " + theme);
    if (button) button.textContent = { auto: "◐ auto", light: "☀ light", dark: "☾ dark" }[theme];
  };
  apply(stored());
  system.addEventListener("change", () => apply(stored()));
  document.addEventListener("click", (event) => {
    if (event.target.id !== "theme") return;
    const next = order[(order.indexOf(stored()) + 1) % order.length];
    try { localStorage.setItem("fieldstation-theme", next); } catch { /* private windows keep nothing */ }
    apply(next);
  });
  // The library builds the page later and sets its own class once; ours comes after it.
  new MutationObserver(() => { if (document.getElementById("theme")?.textContent === "Light or dark") apply(stored()); })
    .observe(document.documentElement, { childList: true, subtree: true });
})();
