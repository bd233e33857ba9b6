r"""Pairs of a gold and an answer, kind by kind of what outside cases found: spellings that are right, and what is near.

Written with the rules in view, unlike :mod:`equivalence`: each kind holds what its rule must leave unequal.
"""

from __future__ import annotations

from equivalence import Pair, _pairs

KINDS: list[Pair] = [
    *_pairs(
        "unicode",
        same=[
            ("x^2", "x²"), ("x^{10}", "x¹⁰"), ("10^{-3}", "10⁻³"), ("x_{12}", "x₁₂"), (r"\frac12", "½"), ("2.5", "2½"),
            (r"\frac23 x", "⅔x"), (r"2\sqrt3", "2√3"), (r"\sqrt{12}", "√12"), (r"\sqrt{x+1}", "√(x+1)"), ("2", "∛8"),
            ("x>2", "x＞2"), ("-5", "－５"), ("-5", "‑5"), (r"90^\circ", "90º"), (r"\{2,3\}", "②, ③"), ("②③", "③②"),
            (r"\text{①③}", "①, ③"), (r"\lambda+1", "1+λ"), ("x+1", "𝑥+1"), (r"\mathbb{R}", "ℝ"), ("30", "∠A=30°"),
            ("15", "15 m²"),
        ],
        different=[
            ("x2", "x²"), ("x^2", "x₂"), ("x^{10}", "x¹0"), ("103", "10³"), ("12", "½"), ("2.5", "2·½"), ("1", "2½"),
            ("21/2", "2½"), (r"\sqrt{3}2", "√32"), (r"\sqrt{12}", "√1·2"), ("23", "②③"), ("5", "②③"), ("R", "ℝ"),
            ("15x^2", "15 m²"), ("15", "15 x²"), (r"90^\circ", "9º"), ("②③", "②④"), ("8", "∛2"), ("5", "－5"),
        ],
    ),
    *_pairs(
        "currency",
        same=[
            ("50", "€50"), ("50", "50€"), ("50", "£50"), ("50", r"\pounds 50"), ("50", "¥50"), ("50", "₹50"),
            ("50", r"\text{Rs. }50"), ("50", "Rs 50"), (r"\$5", "5 dollars"), ("€5", r"5\text{ euros}"),
            (r"\$1,234.50", "1234.5"), ("5", "$5"), (r"$\$5$", "5"), (r"\$5 + \$x", "x+5"), ("$5$", "5"),
        ],
        different=[
            (r"\$5", "5€"), ("€5", "£5"), (r"\$5", "5 cents"), ("50", "€5"), ("€50", "¥50"), (r"\$5", r"5\%"),
            ("5", r"\$5x"), (r"\$18.50", "€1850"), ("Rs", "50"), ("5", "€5, €6"),
        ],
    ),
    *_pairs(
        "style",
        same=[
            ("29", r"\texttt{29}"), ("29", r"\textnormal{29}"), ("29", r"\boldsymbol{29}"), ("29", r"\bm{29}"),
            ("29", r"{\bf 29}"), ("29", r"\textcolor{red}{29}"), ("29", r"\color{red}{29}"), ("29", r"\color{red}29"),
            ("29", r"{\color{blue}29}"), ("29", r"\underline{29}"), ("29", "**29**"), ("A", "**A**"),
            (r"\frac12", r"\boldsymbol{\frac{1}{2}}"), ("5", r"5\,{\rm cm}"), (r"\text{red}", r"\emph{red}"),
        ],
        different=[
            ("29", r"\texttt{92}"), ("29", r"\textcolor{29}{red}"), ("29", r"\color{29}{28}"), ("29", "**2** 9"),
            ("29", r"\underline{2}9x"), (r"5\text{ cm}", r"5\,{\rm m}"), ("x^2+y^3", "x2+y3"), ("2", "**2*3**"),
            (r"\frac12", r"\boldsymbol{\frac{1}{3}}"), (r"\text{red}", r"\textcolor{red}{5}"),
        ],
    ),
    *_pairs(
        "left side",
        same=[
            (r"\frac{AB}{CD}=2", "2"), ("2", r"\frac{AB}{CD}=2"), ("a+b=5", "5"), ("5", "a+b=5"), ("5", "x_1+x_2=5"),
            ("125", "m+n=125"), ("5", r"\overline{AB}=5"), ("5", r"m\angle ABC = 5"), ("5", r"\cos\theta = 5"),
            ("5", r"\overrightarrow{AB}\cdot\overrightarrow{CD}=5"), ("3", r"\max f(x) = 3"), ("7", "x+y=7"),
            ("3", r"\text{Maximum value} = 3"), ("3", r"\text{The answer is } 3"), ("3", r"\text{Answer: 3}"),
            (r"\frac{\sqrt2}{2}", r"x=y=z=\frac{\sqrt2}{2}"), ("x=y=z=2", "2"), ("5", r"\text{Area of } ABC = 5"),
        ],
        different=[
            ("6", "x_1+x_2=5"), ("5", "2x=5"), ("5", "2a=5"), ("5", "AB^2=5"), ("5", r"\frac{x}{2}=5"), ("5", "x=y=7"),
            ("x+2y=3", "3"), ("x^2+y^2=25", "25"), (r"\frac{x}{y}=2", "2"), ("a+b=5", "6"), ("a+b=c", "c"),
            ("5", "7=5"), ("x=y=z=2", "x=2"), ("x=y=z", "z"), ("a+b=5", "a-b=5"), ("2", r"\frac{AB}{CD}=\frac12"),
            ("3", r"\text{The answer is not } 3"), (r"\min f = 4", r"\max f = 4"), ("5", r"a+b\ne 5"), ("5", "a+b=5c"),
            ("a+b-c=0", "0"), ("0", "2a+3b-c=0"), ("5", "3+4=5"),
        ],
    ),
    *_pairs(
        "set builder",
        same=[
            (r"\{x|-2<x<3\}", "(-2,3)"), (r"\{x \mid x>1\}", r"(1,\infty)"), (r"\{x \mid x>1\}", "x>1"),
            ("[-2,1)", r"\{x : -2\leq x<1\}"), (r"\{x|-2<x<3\}", r"\{y|-2<y<3\}"),
            ("(2,3]", r"\{x \in \mathbb{R} : 3 \ge x > 2\}"),
            (r"\{x | x<-1 \text{ or } x>2\}", r"(-\infty,-1)\cup(2,\infty)"),
            (r"(-\infty,-1)\cup(2,\infty)", "x>2 or x<-1"), (r"\{x \mid x \ne 2\}", r"(-\infty,2)\cup(2,\infty)"),
            (r"x \neq 2", r"x\in\mathbb{R}, x\ne 2"), ("x>1", r"x>1, x\in\mathbb{R}"),
        ],
        different=[
            (r"\{x|x>1\}", r"[1,\infty)"), (r"\{x|-2<x<3\}", "(-2,3]"), (r"\{x|x>1\}", r"(-\infty,1)"),
            (r"\{x|x>1\}", r"\{x|x>2\}"), ("(-2,3)", r"\{x\in\mathbb{Z}|-2<x<3\}"),
            (r"(-\infty,-1)\cup(2,\infty)", r"x<-1 \text{ and } x>2"), ("(1,2)", r"\{1,2\}"),
            (r"(-\infty,-1)\cup(2,\infty)", r"x\le-1 \text{ or } x>2"), (r"(-\infty,-1)\cup(2,\infty)", "x<-1 or y>2"),
            ("x>1", r"x>1, x\in\mathbb{Z}"), (r"\{x|1>x>2\}", "(1,2)"), (r"\{x|1<x>2\}", "(1,2)"),
            (r"(-\infty,2)\cup(2,\infty)", r"\{x|y\ne 2\}"),
        ],
    ),
    *_pairs(
        "ratio and quotient",
        same=[
            ("5:8", r"\frac58"), ("3:1", "3"), ("2:3", "4:6"), ("3:4", "S_1:S_2=3:4"), ("0.75", "3:4"),
            ("1:2:3", "2:4:6"), (r"\sqrt2:1", r"2:\sqrt2"), (r"8:34\text{ p.m.}", "8:34 PM"), ("11:30", "11:30 am"),
        ],
        different=[
            ("3:1", "1:3"), ("3:1", r"\frac13"), ("2:3", "3:2"), ("8:7:3", "8/7/3"), ("1:2:3", "1:2:4"),
            ("1:2:3", "1:2"), ("11:30", "22:60"), ("8:34", "4:17"), ("8:34 AM", "8:34 PM"), ("3:4", "S_1:S_2=4:3"),
            ("3:4", "12"), ("1:10", "11"), ("1:2", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        ],
    ),
    *_pairs(
        "angle",
        same=[
            (r"90^\circ", r"\pi/2"), (r"\frac{\pi}{6}", r"30^\circ"), (r"\sin(90^\circ-x)", r"\cos x"),
            (r"2-\sqrt3", r"\tan 15^\circ"), (r"\frac12", r"\sin 30^{\circ}"), (r"90^\circ - x", "90 - x"),
            (r"\frac{\pi}{2}\text{ radians}", r"90^\circ"),
        ],
        different=[
            ("90", r"\pi/2"), (r"90^\circ", r"\pi/3"), (r"90^\circ", r"90\pi"), (r"\tan 15^\circ", r"\tan 15"),
            (r"\frac12", r"\sin 30"), (r"90\text{ cm}", r"\pi/2"), (r"\frac{\pi}{2}^\circ", r"90^\circ"),
        ],
    ),
    *_pairs(
        "free letter",
        same=[
            (r"x=k\pi", r"x=n\pi"), (r"\frac{\pi}{4}+k\pi", r"\frac{\pi}{4}+n\pi"), ("2x+3", "f(t)=2t+3"),
            ("f(x)=2x+3", "f(t)=2t+3"), (r"\frac{\pi}{4}+k\pi", r"\frac{\pi}{4}+k\pi \ (k\in\mathbb{Z})"),
            (r"\frac{x^2}{2}+C", r"\frac{x^2}{2}+K"), ("n=3k", r"n=3k \text{ for positive integers } k"),
            ("2t+3", "f(t)=2t+3"),
        ],
        different=[
            (r"k\pi", r"2n\pi"), (r"x=k\pi", "x=k"), (r"x=k\pi", r"x=\pi"), ("2n", "2k"), ("2x+3", "2t+3"),
            ("2x+3", "f(t)=2x+3t"), ("A+B", "A+C"), ("2C+x", "2K+x"), ("x+C", "x+A"), (r"x=k\pi", r"k=x\pi"),
            ("2x+3", "f(t)=3t+2"), (r"n\ge 3", r"n\ge 3, n\in\mathbb{Z}"), ("2a", "f(t)=2t"),
        ],
    ),
    *_pairs(
        "plain text",
        same=[
            (r"-3\pi", "-3*pi"), (r"O(n\log n)", "O(n log n)"), ("x^2+3", "x**2+3"), ("x^{10}", "x**10"),
            (r"\ln 2", "ln(2)"), ("e^9", "exp(9)"), (r"\frac{\pi}{6}", "pi/6"), (r"\frac{2}{\sqrt n}", "2√(1/n)"),
            (r"2\cos x", "2cos(x)"), (r"\frac{3\pi}{4}", "3pi/4"),
        ],
        different=[
            (r"-3\pi", "-3*p*i"), ("x^{10}", "x*10"), ("x^{10}", "x**1"), (r"\ln 2", "ln(3)"), ("e^9", "9e"),
            (r"\frac{\pi}{6}", "6/pi"), ("2x", "x**2"), ("pin", r"\pi n"), ("x^2+y^3", "x**2 + y**2"),
        ],
    ),
    *_pairs(
        "mixed number and repeating decimal",
        same=[
            (r"\frac{13}{4}", "3 1/4"), ("3 1/4", r"\frac{13}{4}"), (r"-\frac{13}{4}", "-3 1/4"), ("3.25", "3 1/4"),
            (r"\frac13", r"0.\overline{3}"), (r"\frac16", r"0.1\overline{6}"), (r"\frac19", r"0.\dot{1}"),
            (r"\frac{37}{3}", r"12.\overline{3}"),
        ],
        different=[
            (r"-\frac{11}{4}", "-3 1/4"), ("-3+1/4", "-3 1/4"), ("31/4", "3 1/4"), ("3", "3 1/4"),
            (r"\frac34", "3 1/4"), ("10", "4 10/3"), ("2", "2 1/2, 3"), (r"\frac13", r"0.3"),
            (r"0.\overline{3}", "0.33"), (r"\frac13", r"0.\overline{34}"), (r"0.\overline{12}", r"0.1\overline{2}"),
        ],
    ),
    *_pairs(
        "unbraced argument",
        same=[
            (r"\frac{1+a}{c}", r"\frac{1+a}c"), (r"\frac\pi2", r"\frac{\pi}{2}"), (r"\sqrt[3]2", r"\sqrt[3]{2}"),
            (r"\sqrt2", r"\sqrt{2}"), (r"\frac12x", "x/2"), (r"\frac{\sqrt2}2", r"\frac{1}{\sqrt2}"),
            (r"\frac xy", r"\frac{x}{y}"), (r"\sqrt\pi", r"\sqrt{\pi}"),
        ],
        different=[
            (r"\frac{1+a}{c}", r"\frac{1}{a+c}"), (r"\frac\pi2", r"\frac2\pi"), (r"\sqrt[3]2", r"\sqrt2"),
            (r"\frac12x", r"\frac{1}{2x}"), (r"\sqrt2x", r"\sqrt{2x}"), (r"\frac xy", "xy"),
            (r"\frac{\sqrt2}2", r"\sqrt{22}"),
        ],
    ),
    *_pairs(
        "symbol",
        same=[
            (r"1-\gamma", r"-\gamma+1"), ("E_1+E_2", "E_2+E_1"), (r"\frac{e^{2it}}{2+2i}", r"\frac{(1-i)e^{2it}}{4}"),
            ("e^{it}", r"\cos t+i\sin t"), (r"\sqrt{xy}", r"\sqrt{x}\sqrt{y}"),
            (r"\sqrt{\frac ab}", r"\frac{\sqrt a}{\sqrt b}"), (r"\sqrt{x^2y}", r"|x|\sqrt y"), (r"\Gamma(3)", "2"),
        ],
        different=[
            (r"1-\gamma", r"1+\gamma"), (r"\gamma", "g"), ("E_1+E_2", "E_1"), ("E_1", "E_2"), ("e^{it}", "e^{-it}"),
            ("The maximum value of x is 4", "8"), ("e^{it}", r"\cos t"), ("|x|", "x"), (r"\sqrt{x^2}", "x"),
            (r"\sqrt{xy}", r"\sqrt x+\sqrt y"), (r"\sqrt{x+y}", r"\sqrt x\sqrt y"),
            (r"\sqrt{\frac ab}", r"\frac{\sqrt b}{\sqrt a}"), (r"\sqrt{x^2y}", r"x\sqrt y"), ("E_1", "e_1"),
            (r"\gamma_0+1", "1"), ("I_1+2", "i+2"),
        ],
    ),
    *_pairs(
        "nested and labelled list",
        same=[
            ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"), ("(1,2)", "y=2,x=1"), ("(1;2)", "(1;x=2)"),
            (r"(\pm 1, \pm 2)", "(1,2),(1,-2),(-1,2),(-1,-2)"), (r"(\pm1,\mp1)", "(1,-1),(-1,1)"),
            (r"\langle 1,2\rangle", "(1,2)"), ("12, 20", r"12 \text{ chickens and } 20 \text{ rabbits}"),
            ("12, 20", r"\text{chickens: } 12, \text{ rabbits: } 20"), ("(1,2)", r"\begin{cases}x=1\\y=2\end{cases}"),
        ],
        different=[
            ("p=5,q=2", "p=2,q=5"), ("(1;b=2)", "(1;b=3)"), ("p=5,q=2;p=7,q=2", "(2,5),(7,2)"),
            ("p=5,q=2;p=7,q=2", "(5,2)"), ("(1,2)", "y=1,x=2"), ("(1,2)", "x=2,y=1"),
            (r"(\pm 1, \pm 2)", "(1,2),(-1,-2)"), (r"(\pm1,\mp1)", "(1,1),(-1,-1)"), (r"\langle 1,2\rangle", "(2,1)"),
            (r"\langle 1,2\rangle", "[1,2]"),
            (r"12 \text{ chickens and } 20 \text{ rabbits}", r"20 \text{ chickens and } 12 \text{ rabbits}"),
            ("(1,2)", r"\begin{cases}x=2\\y=1\end{cases}"), (r"\text{chickens: } 12", r"\text{rabbits: } 12"),
        ],
    ),
    *_pairs(
        "congruence",
        same=[
            (r"n \equiv 1 \pmod 6", r"n\equiv 7 \pmod{6}"), (r"n \equiv 1 \pmod 6", r"n \equiv 1 \ (\text{mod } 6)"),
            (r"n \equiv 1, 5 \pmod 6", r"n \equiv -1, 1 \pmod 6"), (r"x \equiv 3 \mod 4", r"x\equiv -1 \bmod 4"),
        ],
        different=[
            (r"n \equiv 1 \pmod 6", r"n \equiv 2 \pmod 6"), (r"n \equiv 1 \pmod 6", r"n \equiv 1 \pmod 5"),
            (r"n \equiv 1 \pmod 6", "1"), (r"n \equiv 1, 5 \pmod 6", r"n \equiv 1 \pmod 6"),
            (r"n \equiv 1 \pmod 6", r"m \equiv 1 \pmod 6"),
        ],
    ),
    *_pairs(
        "ordinal and number word",
        same=[
            ("12", "12th"), ("3", "3^{rd}"), ("2", r"2^{\text{nd}}"), ("15th day", "15"), ("1", r"1\text{st}"),
            ("3", "three"), (r"\text{three}", "3"), ("2", r"\text{two}"),
        ],
        different=[
            ("12", "13th"), ("5", "5st"), ("12", "12t"), ("3", "3rdx"), ("3", "two"), ("13", r"\text{three}"),
            ("2", "2^{n}"),
        ],
    ),
    *_pairs(
        "option",
        same=[
            ("A", "A) 5"), ("A", r"\text{Option A}"), ("A", "A: 5"), ("AC", "A, C"), ("AC", "C and A"), ("AC", "CA"),
            ("B", "(B) 7"), ("C", "choice C"),
        ],
        different=[
            ("A", "B) 5"), ("A", "A, C"), ("AC", "A, B"), ("AC", "A"), ("AC", "A, C, D"), ("AC", "A, A, C, C, B"),
            ("A", "B: 5"), ("A", r"\text{Option B}"), ("A", "A: B"), ("AB", "1, 2"), ("A", "A) 5 or B) 6"),
        ],
    ),
]  # fmt: skip
