"use strict";
// What is live in a page is made on the server: fetch the page again and put in what differs.
const live = (() => {
  let tag = null;

  async function fetched(address) {
    const headers = tag === null ? {} : { "If-None-Match": tag };
    const answer = await fetch(address, { headers, cache: "no-store" });
    if (answer.status === 304) return null;
    if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
    tag = answer.headers.get("ETag");
    return new DOMParser().parseFromString(await answer.text(), "text/html");
  }

  // Every element with data-live, by its id.
  async function refresh() {
    const found = await fetched(location.href);
    if (found === null) return;
    for (const fresh of found.querySelectorAll("[data-live]")) {
      const old = document.getElementById(fresh.id);
      if (old !== null && old.outerHTML !== fresh.outerHTML) old.replaceWith(fresh);
    }
    document.title = found.title;
  }

  return { fetched, refresh };
})();
