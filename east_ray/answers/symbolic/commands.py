"""What commands, words and names of LaTeX and plain text stand for: the lists that the tokenizer reads."""


def value_of_each_name(groups: str) -> dict[str, str]:
    """A table from text: each group, up to a semicolon, is a value and the names that stand for it."""
    split = (group.split() for group in groups.split(";"))
    return {name: value for value, *names in split for name in names}


MARKS = value_of_each_name(
    r"""
    * cdot times ast;  / div;  ± pm;  ∓ mp;  ≤ le leq leqslant;  ≥ ge geq geqslant;  < lt;  > gt;  ≠ ne neq;
    ≈ approx simeq;  = equiv;  ∈ in;  ∪ cup bigcup;  ∩ cap bigcap;  \\ cr \;  ∖ setminus backslash;  ⦃ { lbrace;
    ⦄ } rbrace;  ⟨ langle;  ⟩ rangle;  ⌊ lfloor;  ⌋ rfloor;  ⌈ lceil;  ⌉ rceil;  [ lbrack;  ] rbrack;
    | lvert rvert vert mid | lVert rVert;  : colon;  , quad qquad or lor vee;  ∧ and land wedge;  % %;  ° degree;
    ' prime;  √ sqrt;  frac frac dfrac tfrac cfrac;  binom binom dbinom tbinom;  ∑ sum;  ∏ prod;  choose choose;
    over over;  → to rightarrow Rightarrow implies;  & &
    """
)
LETTERS = value_of_each_name(
    """
    π pi;  ∞ infty infinity inf oo;  ∅ emptyset varnothing;  θ theta;  φ varphi phi;  α alpha;  β beta;  γ gamma;
    λ lambda;  μ mu;  σ sigma;  ω omega;  ε epsilon varepsilon;  ρ rho;  δ delta;  ℝ R reals;  … cdots ldots dots
    """
)
_FUNCTION_NAMES = """
    sin cos tan sec csc cot cis sinh cosh tanh arcsin arccos arctan asin acos atan ln log lg exp max min gcd lcm abs
    floor ceil
"""
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_LAYOUT_COMMANDS = """
    left right middle big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits
    nolimits boxed fbox framebox mathbf mathcal mathit mathsf boldsymbol bm vec overrightarrow hat widehat
    underline bf rm it Large large normalsize ensuremath hfill , ; : ! > /
"""
IGNORED = frozenset((*_LAYOUT_COMMANDS.split(), " ", "\n", "\t"))
TEXT_COMMAND_NAMES = "text textbf textrm textit textnormal textsf texttt textup emph mbox hbox mathrm operatorname"
TEXT_COMMANDS = frozenset(TEXT_COMMAND_NAMES.split())
_PLAIN_WORD_NAMES = "pi infinity inf oo theta alpha beta gamma lambda sqrt and or"
PLAIN_WORDS = frozenset(_PLAIN_WORD_NAMES.split())
_UNIT_NAMES = """
    Hz USD am bag box boy bus can car cat cc cm cow cu cup dL day deg dm dog egg ft gal gm hat hen hr hrs in jar kg
    kid km kph lb lbs mL man men mg mi min mins ml mm mph ms nm oz pct pen per pie pig pm rad sec secs sq ton toy
    usd way yd
"""
SHORT_UNITS = frozenset(_UNIT_NAMES.split())
