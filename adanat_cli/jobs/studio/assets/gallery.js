// A click on an image, or Enter on it, says which it is.
const chosen = (event) => {
  const figure = event.target.closest("figure");
  if (figure) trigger("click", { index: [...figure.parentElement.children].indexOf(figure) });
};
element.addEventListener("click", chosen);
element.addEventListener("keydown", (event) => {
  if (event.key === "Enter") chosen(event);
});
