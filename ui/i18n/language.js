// Runs before Gradio, which reads the browser's language once, from navigator.
(() => {
  // In another site's frame a browser may refuse to keep anything, and Gradio would not even start.
  try {
    localStorage.length;
  } catch {
    const kept = new Map();
    const value = {
      getItem: (name) => kept.get(name) ?? null,
      setItem: (name, text) => kept.set(name, `${text}`),
      removeItem: (name) => kept.delete(name),
    };
    Object.defineProperty(window, "localStorage", { value });
  }

  const key = "optimizer-lab-language";
  const known = (language) => /^zh\b/i.test(language) ? "zh" : /^en\b/i.test(language) ? "en" : null;
  const address = new URL(location.href);
  const asked = known(address.searchParams.get("lang") ?? "");
  if (asked) localStorage.setItem(key, asked);
  const chosen = asked ?? known(localStorage.getItem(key) ?? "");
  if (chosen && !asked) {
    // The server reads the address too.
    address.searchParams.set("lang", chosen);
    history.replaceState(history.state, "", address);
  }
  const language = chosen ?? known(navigator.language);
  if (!language) return;
  // Gradio's own words for Chinese stand under zh-CN alone.
  const tag = { zh: "zh-CN", en: "en" }[language];
  Object.defineProperty(navigator, "language", { get: () => tag });
  Object.defineProperty(navigator, "languages", { get: () => [tag] });
})();
