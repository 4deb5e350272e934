// Formulas, set by KaTeX where the Markdown had $...$ or $$...$$; again after each page that Material loads by itself.
document$.subscribe(({ body }) => {
  body.querySelectorAll(".arithmatex").forEach((element) => {
    const text = element.textContent.trim();
    const display = text.startsWith("\\[");
    katex.render(text.slice(2, -2), element, { displayMode: display, throwOnError: true });
  });
});
