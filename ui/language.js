// Runs before Gradio, which reads the browser's language once, from navigator.
(() => {
  const key = "optimizer-lab-language";
  const known = (language) => /^zh\b/i.test(language) ? "zh" : /^en\b/i.test(language) ? "en" : null;
  const address = new URL(location.href);
  const asked = known(address.searchParams.get("lang") ?? "");
  let chosen = asked;
  try {
    if (asked) localStorage.setItem(key, asked);
    else chosen = known(localStorage.getItem(key) ?? "");
  } catch {
    // In another site's frame a browser may keep nothing; the address alone says it then.
  }
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
