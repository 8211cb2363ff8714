# ruff: noqa: E501  (a table: one interest a line)
"""What the synthetic population buys, visits and searches: interests and their words.

Nobody's latent interest is written out in an event: only its words are.
"""

from functools import cache

import numpy as np

INTERESTS: dict[str, tuple[str, ...]] = {
    "music": ("concert ticket", "vinyl record", "guitar strings", "festival pass", "live session", "choir evening", "headphones", "piano lesson", "band merchandise", "karaoke room"),
    "takeaway": ("noodle delivery", "pizza to go", "bubble tea", "fried chicken box", "sushi platter", "burger combo", "dumpling bowl", "late night snack", "curry delivery", "breakfast wrap"),
    "ecology": ("tree planting", "recycling pickup", "bike share ride", "refill station", "second hand market", "solar panel", "compost kit", "public transport pass", "reusable cup", "nature reserve"),
    "fashion": ("leather handbag", "designer sneakers", "silk scarf", "perfume counter", "runway show", "lipstick set", "wool coat", "sunglasses", "wrist watch", "tailored dress"),
    "bargains": ("discount voucher", "flash sale", "group buying deal", "cashback offer", "clearance outlet", "coupon code", "bulk pack", "price comparison", "loyalty stamp", "free sample"),
    "investing": ("index fund", "share trading", "bond purchase", "portfolio review", "gold savings", "pension plan", "wealth seminar", "dividend report", "currency exchange", "robo advisor"),
    "borrowing": ("cash loan", "credit instalment", "overdraft notice", "debt consolidation", "pawn shop", "payday advance", "loan repayment", "late fee", "credit score check", "salary advance"),
    "gambling": ("lottery slip", "sports betting", "poker table", "slot machine", "scratch card", "casino chips", "horse race wager", "bingo night", "prize draw", "jackpot draw"),
    "parenting": ("diapers", "infant formula", "stroller", "nursery furniture", "children books", "toy blocks", "baby clothes", "school supplies", "pediatric visit", "playground entry"),
    "pets": ("dog food", "cat litter", "veterinary visit", "aquarium filter", "puppy training", "bird seed", "pet grooming", "leash and collar", "hamster cage", "cat tree"),
    "fitness": ("gym membership", "yoga class", "protein powder", "running shoes", "swimming pool", "dumbbells", "cycling jersey", "boxing lesson", "fitness tracker", "marathon entry"),
    "travel": ("flight booking", "hotel night", "travel insurance", "suitcase", "train journey", "city tour", "visa service", "airport lounge", "camping site", "car rental"),
    "gaming": ("console game", "game credits", "esports arena", "gaming keyboard", "virtual skin", "board game", "arcade tokens", "game streaming", "graphics card", "trading cards"),
    "cooking": ("fresh vegetables", "olive oil", "baking flour", "spice rack", "cast iron pan", "farmers market", "recipe book", "seafood counter", "kitchen knife", "herb garden"),
    "gardening": ("flower bulbs", "potting soil", "lawn mower", "rose bush", "watering can", "greenhouse", "garden gloves", "fruit tree", "hedge trimmer", "plant fertiliser"),
    "motoring": ("petrol station", "car wash", "engine oil", "winter tyres", "parking garage", "motorway toll", "brake service", "car insurance", "motorcycle helmet", "charging point"),
    "health": ("pharmacy order", "dental check", "vitamin tablets", "blood test", "physiotherapy", "eye clinic", "cough syrup", "health insurance", "massage therapy", "sleep clinic"),
    "education": ("language course", "exam registration", "tutoring hour", "university fee", "coding bootcamp", "stationery", "library card", "online lecture", "dictionary", "certificate"),
    "home": ("sofa", "wall paint", "moving van", "curtains", "light fixtures", "mattress", "plumber visit", "rent payment", "power drill", "floor tiles"),
    "reading": ("detective novel", "newspaper subscription", "audio book", "poetry evening", "book club", "comic volume", "magazine", "history book", "e-reader", "antique books"),
    "cinema": ("movie ticket", "streaming subscription", "popcorn bucket", "film festival", "documentary night", "projector", "series premiere", "drive-in cinema", "actor biography", "cinema gift card"),
    "electronics": ("smartphone", "laptop repair", "wireless charger", "smart speaker", "tablet case", "memory card", "drone", "camera lens", "router", "phone contract"),
    "beverages": ("craft beer", "wine tasting", "coffee beans", "espresso bar", "whisky bottle", "green tea", "cocktail lounge", "brewery tour", "milkshake", "mineral water"),
    "community": ("charity donation", "temple visit", "volunteer shift", "wedding gift", "neighbour fair", "blood donation", "church bazaar", "senior club", "local election", "street festival"),
}  # fmt: skip
"""24 interests, ten things each."""

NAMES = tuple(INTERESTS)
NUM_INTERESTS, NUM_ITEMS = len(NAMES), 10

MODALITIES = ("payments", "mini_programs", "page_paths", "apps", "searches")
_FORMS: dict[str, tuple[str, ...]] = {
    "payments": tuple(
        f"{name} {{item}}"
        for name in ("Avelo", "Brinka", "Corvid", "Dunmore", "Estrel", "Fenwick", "Golanta", "Hobart")
    ),
    "mini_programs": ("{item} booking", "{item} member card", "{item} queue", "{item} gallery"),
    "page_paths": (
        "home > {item} > list",
        "home > {item} > detail > reviews",
        "search > {item} > detail",
        "push message > {item} > checkout",
        "profile > favourites > {item}",
    ),
    "apps": ("{item} finder", "my {item}", "{item} pro"),
    "searches": (
        "best {item}",
        "{item} near me",
        "cheap {item}",
        "{item} opening hours",
        "{item} reviews",
        "how to choose {item}",
        "{item} today",
        "used {item}",
    ),
}
BACKGROUND = ("utility bill", "supermarket", "weather", "messages", "news", "bus ride", "bank transfer", "clock", "calendar", "maps")  # fmt: skip
"""What everybody does: says nothing of anybody."""


def num_forms(modality: str) -> int:
    """How many texts each thing has in a modality."""
    return len(_FORMS[modality])


_SYLLABLES = ("vor", "kel", "tam", "dri", "sab", "mun", "pex", "zor", "nif", "gat", "hul", "bex")
_OPAQUE_ORDER = (1, 3, 5, 7, 9, 0, 2, 4, 6, 8)
"""Which of an interest's things lose their names first; its most popular thing is the first of ten."""


@cache
def items(num_opaque: int = 0) -> np.ndarray:
    """((24 + 1) * 10,) object array of things; index = interest * 10 + item, the background last.

    Args:
        num_opaque: so many of each interest's ten things bear a made-up name that says nothing, as brands
            do ("tamzorbex"); only behaviour tells what they are.
    """
    named = [item for words in INTERESTS.values() for item in words]
    for interest in range(NUM_INTERESTS):
        for item in _OPAQUE_ORDER[:num_opaque]:
            named[interest * NUM_ITEMS + item] = _opaque_name(interest * NUM_ITEMS + item)
    return np.array([*named, *BACKGROUND], dtype=object)


def _opaque_name(thing: int) -> str:
    """Three syllables, another name for each thing; neighbours do not sound alike."""
    number, base = (thing * 467 + 211) % len(_SYLLABLES) ** 3, len(_SYLLABLES)
    return "".join(_SYLLABLES[number // base**place % base] for place in range(3))


@cache
def texts(modality: str, num_opaque: int = 0) -> np.ndarray:
    """(250 * forms,) object array of event texts; index = thing * forms + form."""
    return np.array(
        [form.format(item=item) for item in items(num_opaque).tolist() for form in _FORMS[modality]],
        dtype=object,
    )
