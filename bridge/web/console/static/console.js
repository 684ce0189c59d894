// What is nicer with JavaScript; every page works without it.
(() => {
  "use strict";
  const zone = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };

  // Times in the viewer's zone; the title keeps UTC.
  function localise(root) {
    for (const element of root.querySelectorAll("time[datetime]:not([data-local])")) {
      const at = new Date(element.dateTime);
      if (Number.isNaN(at.getTime())) continue;
      const options = "precise" in element.dataset ? { ...zone, fractionalSecondDigits: 3 } : zone;
      element.textContent = at.toLocaleString(undefined, options);
      element.dataset.local = "";
    }
  }

  function showCopyButtons(root) {
    for (const button of root.querySelectorAll("button[data-copy][hidden]")) button.hidden = false;
  }

  function textOf(element) {
    return "value" in element ? element.value : element.textContent;
  }

  async function copy(button) {
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(textOf(document.getElementById(button.dataset.copy)));
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it, and copy it";
    }
    setTimeout(() => { button.textContent = label; }, 2000);
  }

  function refresh(root) {
    localise(root);
    showCopyButtons(root);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-copy]");
    if (button) copy(button);
  });
  const place = document.getElementById("zone");
  if (place) place.textContent = `Times are in your zone (${Intl.DateTimeFormat().resolvedOptions().timeZone}), with UTC on hover.`;
  document.addEventListener("htmx:afterSwap", () => refresh(document));
  refresh(document);
})();
