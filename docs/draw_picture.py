"""Draws docs/layout.svg: LeNet's training graph as it is written and as it runs under the flag.

    python docs/draw_picture.py
"""
import os

BC01, C01B, PLAIN, MARK = "#d9d9d9", "#9ecae1", "#ffffff", "#d95f02"
FORWARD = ["x", "conv", "max-pool", "+ b, tanh", "conv", "max-pool", "+ b, tanh", "flatten", "dot", "softmax"]
STEP, BOX, HEIGHT = 96, 84, 30


def box(x, y, text, fill):
    return ('<rect x="%d" y="%d" width="%d" height="%d" rx="4" fill="%s" stroke="#666"/>'
            '<text x="%d" y="%d" text-anchor="middle">%s</text>' % (x, y, BOX, HEIGHT, fill, x + BOX // 2, y + 19, text))


def arrow(x1, y1, x2, y2):
    return '<path d="M%d %d L%d %d" stroke="#333" fill="none" marker-end="url(#head)"/>' % (x1, y1, x2, y2)


def conversion(x, y):
    return '<circle cx="%d" cy="%d" r="6" fill="%s"/>' % (x, y, MARK)


def graph(top, flagged):
    """One row forward, one row of gradients below it."""
    parts = []
    for i, name in enumerate(FORWARD):
        x = 20 + i * STEP
        image_part = 1 <= i <= 7
        fill = (C01B if flagged else BC01) if image_part else PLAIN
        parts.append(box(x, top, name, fill))
        if i:
            parts.append(arrow(x - STEP + BOX, top + HEIGHT // 2, x - 1, top + HEIGHT // 2))
            if i > 1:
                parts.append(arrow(x - 1, top + 70 + HEIGHT // 2, x - STEP + BOX, top + 70 + HEIGHT // 2))
            parts.append(box(x, top + 70, "∂ " + name, fill))
            parts.append(arrow(x + BOX // 2, top + HEIGHT, x + BOX // 2, top + 69))
        if name == "conv":
            parts.append(box(x, top + 126, "filters", PLAIN))
            parts.append(arrow(x + BOX // 2, top + 70 + HEIGHT, x + BOX // 2, top + 125))
            if flagged:
                parts.append(conversion(x + BOX // 2 - 14, top + 114))
                parts.append(conversion(x + BOX // 2 + 14, top + 114))
    if flagged:
        parts.append(conversion(20 + BOX + (STEP - BOX) // 2, top + HEIGHT // 2))
    return parts


def legend(y):
    parts = []
    for x, fill, text in ((20, BC01, "bc01"), (120, C01B, "c01b: batch last, contiguous"), (330, PLAIN, "no layout")):
        parts.append('<rect x="%d" y="%d" width="16" height="16" rx="3" fill="%s" stroke="#666"/>' % (x, y, fill))
        parts.append('<text x="%d" y="%d">%s</text>' % (x + 24, y + 13, text))
    parts.append(conversion(448, y + 8))
    parts.append('<text x="462" y="%d">a conversion: 5 in all, none of an activation but the input</text>' % (y + 13))
    return parts


def main():
    width, height = 40 + len(FORWARD) * STEP, 470
    lines = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" '
             'font-size="12">' % (width, height, width, height),
             '<defs><marker id="head" markerWidth="7" markerHeight="7" refX="6" refY="3" orient="auto">'
             '<path d="M0 0 L6 3 L0 6 z" fill="#333"/></marker></defs>',
             '<rect width="%d" height="%d" fill="#ffffff"/>' % (width, height),
             '<text x="20" y="24" font-size="14">LeNet\'s training step as it is written</text>', *graph(36, False),
             '<text x="20" y="234" font-size="14">… and as it runs with optimizer_including=layoutopt</text>',
             *graph(246, True), *legend(432), "</svg>"]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "layout.svg"), "w", encoding="utf-8") as target:
        target.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
