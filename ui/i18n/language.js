// Runs before Gradio, which reads navigator.language only once.
(() => {
  // In a frame of another site a browser may forbid localStorage, without which Gradio does not start.
  try {
    localStorage.length;
  } catch {
    const items = new Map();
    const value = {
      getItem: (name) => items.get(name) ?? null,
      setItem: (name, text) => items.set(name, `${text}`),
      removeItem: (name) => items.delete(name),
    };
    Object.defineProperty(window, "localStorage", { value });
  }

  const key = "optimizer-lab-language";
  const known = (language) => /^zh\b/i.test(language) ? "zh" : /^en\b/i.test(language) ? "en" : null;
  const address = new URL(location.href);
  const requested = known(address.searchParams.get("lang") ?? "");
  if (requested) localStorage.setItem(key, requested);
  const chosen = requested ?? known(localStorage.getItem(key) ?? "");
  if (chosen && !requested) {
    // The server reads the address too.
    address.searchParams.set("lang", chosen);
    history.replaceState(history.state, "", address);
  }
  const language = chosen ?? known(navigator.language);
  if (!language) return;
  // Gradio has its own Chinese words under zh-CN only.
  const tag = { zh: "zh-CN", en: "en" }[language];
  Object.defineProperty(navigator, "language", { get: () => tag });
  Object.defineProperty(navigator, "languages", { get: () => [tag] });
})();
