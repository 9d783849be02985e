r"""What commands, words and names of LaTeX and plain text stand for: the lists that the tokenizer reads.

A command that is on no list here is opaque: it is kept, in order, with the list item around it. Only what `IGNORED`,
`TYPE_MARKS` and `SEGMENT_LINES` say is dropped.
"""


def value_of_each_name(groups: str) -> dict[str, str]:
    """A table from text: each group, up to a semicolon, is a value and the names that stand for it."""
    split = (group.split() for group in groups.split(";"))
    return {name: value for value, *names in split for name in names}


MARKS = value_of_each_name(
    r"""
    * cdot times ast;  / div;  ± pm;  - minus;  ∓ mp;  ≤ le leq leqslant leqq;  ≥ ge geq geqslant geqq;  < lt;  > gt;
    ≠ ne neq;  ≈ approx simeq;  = equiv;  ∈ in;  ∪ cup bigcup;  ∩ cap bigcap;  \\ cr \;  ∖ setminus backslash;
    ⦃ { lbrace;  ⦄ } rbrace;  ⟨ langle;  ⟩ rangle;  ⌊ lfloor;  ⌋ rfloor;  ⌈ lceil;  ⌉ rceil;  [ lbrack;  ] rbrack;
    | lvert rvert vert mid | lVert rVert;  : colon;  , quad qquad or;  and and;  % %;  ° degree;
    ' prime;  √ sqrt;  frac frac dfrac tfrac cfrac sfrac nicefrac;  binom binom dbinom tbinom;  ∑ sum;  ∏ prod;
    choose choose;  over over;  & &;  ∧ land wedge;  ∨ lor vee;  \not not;
    → to rightarrow Rightarrow implies longrightarrow Longrightarrow;  ← gets leftarrow Leftarrow impliedby;
    ↔ iff leftrightarrow Leftrightarrow Longleftrightarrow;  ↦ mapsto longmapsto;
    ⊂ subset;  ⊃ supset;  ⊆ subseteq;  ⊇ supseteq;  ⊊ subsetneq subsetneqq;  ⊋ supsetneq supsetneqq;  ≺ prec;  ≻ succ;
    ⪯ preceq preccurlyeq;  ⪰ succeq succcurlyeq;  ≪ ll;  ≫ gg;  ∋ ni owns;  ∝ propto varpropto;  ⊢ vdash;
    ⊨ models vDash;
    ⊲ lhd vartriangleleft;  ⊳ rhd vartriangleright;  ⊑ sqsubseteq;  ⊒ sqsupseteq;  not∈ notin;  not| nmid;
    not⊆ nsubseteq;  not⊇ nsupseteq;  ∥ parallel;  not∥ nparallel;  ⊥ perp;  ≅ cong;  ∼ sim;  ≍ asymp;  ≐ doteq;
    ∘ circ;  ⊕ oplus bigoplus;  ⊖ ominus;  ⊗ otimes bigotimes;  ⊘ oslash;  ⊙ odot;  ⋆ star;  • bullet;  ⊎ uplus;
    ⊓ sqcap;  ⊔ sqcup;  ⋊ rtimes;  ⋉ ltimes;  ≀ wr;  ⋄ diamond
    """
)
#: Characters that have another sign in the table above.
SIGN_OF_CHARACTER = value_of_each_name(
    "→ ⇒ ⟶ ⟹;  ← ⇐ ⟵;  ↔ ⇔ ⟺ ⟷;  ↦ ⟼;  not∈ ∉;  not⊂ ⊄;  not⊃ ⊅;  not⊆ ⊈;  not⊇ ⊉;  not| ∤;  not∥ ∦;  ≈ ≃;  ∼ ~;  = ≡;"
    "  ≤ ≦;  ≥ ≧;  ⪯ ≼;  ⪰ ≽;  not≅ ≇;  not∼ ≁;  not⊢ ⊬;  not⊨ ⊭;  not< ≮;  not> ≯;  ⋆ ★;  • ∙"
)
LETTERS = value_of_each_name(
    """
    π pi;  ∞ infty infinity inf oo;  ∅ emptyset varnothing;  θ theta;  φ varphi phi;  α alpha;  β beta;  γ gamma;
    λ lambda;  μ mu;  σ sigma;  ω omega;  ε epsilon varepsilon;  ρ rho;  δ delta;  ℝ R reals;  … cdots ldots dots
    η eta;  ζ zeta;  κ kappa;  ν nu;  ξ xi;  τ tau;  υ upsilon;  χ chi;  ψ psi;  Γ Gamma;  Δ Delta;  Θ Theta varTheta;
    Λ Lambda;  Ξ Xi;  Π Pi;  Σ Sigma;  Υ Upsilon;  Φ Phi;  Ψ Psi;  Ω Omega;  ℓ ell;  ℏ hbar;  ℵ aleph;  ⊤ top;  ⊥ bot;
    ∠ angle measuredangle;  △ triangle vartriangle;  □ square Box;  † dagger;  ¬ neg lnot;
    ℕ N natnums naturals;  ℤ Z integers;  ℚ Q rationals;  ℂ C cnums Complex
    """
)
#: Relations whose two sides are not exchanged, and the sign that stands for each when they are.
FLIPPED_RELATIONS = {"⊃": "⊂", "⊇": "⊆", "⊋": "⊊", "≻": "≺", "⪰": "⪯", "≫": "≪", "⊳": "⊲", "⊒": "⊑", "←": "→"}
_ORDERED_RELATIONS = [*FLIPPED_RELATIONS, *FLIPPED_RELATIONS.values(), *"∋∝⊢⊨↦"]
SYMMETRIC_RELATIONS = frozenset((*"∥⊥≅∼≍≐↔", "not∥", "not⊥", "not≅", "not∼", "not↔"))
#: Relations that are not computed: both sides are kept.
KEPT_RELATIONS = SYMMETRIC_RELATIONS.union(
    _ORDERED_RELATIONS, (f"not{sign}" for sign in (*_ORDERED_RELATIONS, *"∈<>≤≥≈|"))
)
#: Operators that are not computed: both operands are kept, in order.
KEPT_OPERATORS = frozenset("∘⊕⊖⊗⊘⊙⋆•⊎⊓⊔⋊⋉≀⋄×")
#: Signs before the letters of a figure, whose order counts: the vertex of an angle stands in the middle.
FIGURES = frozenset("∠△□")
_DOUBLE_STRUCK = {"C": "ℂ", "H": "ℍ", "N": "ℕ", "P": "ℙ", "Q": "ℚ", "R": "ℝ", "Z": "ℤ", "1": "𝟙"}
#: The letter of ``\mathbb{R}``, as one character.
BLACKBOARD = {
    letter: chr(0x1D538 + place) for place, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
} | _DOUBLE_STRUCK
_FUNCTION_NAMES = """
    sin cos tan sec csc cot cis sinh cosh tanh sech csch coth arcsin arccos arctan arccot arcsec arccsc asin acos atan
    ln log lg exp max min gcd lcm abs
    floor ceil
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_LAYOUT_COMMANDS = """
    left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits
    nolimits boxed fbox framebox mathbf mathcal mathit mathsf boldsymbol bm
    underline bf rm it Large large normalsize ensuremath hfill
    huge Huge LARGE small tiny footnotesize scriptsize strut mathstrut nonumber notag relax allowbreak , ; : ! > /
"""
#: Commands without a meaning of their own, which are dropped; a font or a line below changes no value.
IGNORED = frozenset((*_LAYOUT_COMMANDS.split(), " ", "\n", "\t"))
#: Marks over a letter, and their names in a key. Over one letter, those of TYPE_MARKS are dropped: \vec{v} is v.
ACCENTS = value_of_each_name(
    """
    vec vec overrightarrow;  hat hat widehat;  tilde tilde widetilde;  bar bar overline;  dot dot;  ddot ddot;
    check check widecheck;  breve breve;  acute acute;  grave grave;  mathring mathring;  overleftarrow overleftarrow;
    overleftrightarrow overleftrightarrow;  arc arc overarc wideparen overparen;  mathfrak mathfrak frak;
    mathscr mathscr
    """
)
TYPE_MARKS = frozenset(("vec", "hat"))
#: A line over two capital letters or more is that of a segment, and over a number that of a mean: it is dropped.
SEGMENT_LINES = frozenset(("bar",))
TEXT_COMMAND_NAMES = "text textbf textrm textit textnormal textsf texttt textup emph mbox hbox mathrm operatorname"
TEXT_COMMANDS = frozenset(TEXT_COMMAND_NAMES.split())
_PLAIN_WORD_NAMES = "pi infinity inf oo theta alpha beta gamma delta lambda sigma phi omega sqrt and or"
PLAIN_WORDS = frozenset(_PLAIN_WORD_NAMES.split())
_UNIT_NAMES = """
    Hz USD bag box boy bus can car cat cc cm cow cu cup dL day deg dm dog egg ft gal gm hat hen hr hrs in jar kg
    kid km kph lb lbs mL man men mg mi min mins ml mm mph ms nm oz pct pen per pie pig rad sec secs sq ton toy
    usd way yd kWh mol kPa rpm MHz GHz kHz kJ kW kV mA dB yr yrs pt pts atm eV keV MeV EUR GBP CAD AUD INR RMB ppm psi
    fps
"""
SHORT_UNITS = frozenset(_UNIT_NAMES.split())
