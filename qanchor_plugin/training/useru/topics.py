"""Seventy-two seed topics of life, finance and retail (as many as Query-as-Anchor §3.1; ours)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_TABLE = """
groceries|everyday groceries|grocery groceries supermarket vegetables fruit bread milk eggs
fresh produce|fresh fruit and vegetables|produce vegetable fruit salad tomato potato banana berry herb
meat and fish|meat and seafood|meat beef pork chicken seafood fish sausage ham turkey
deli|the deli counter|deli delicatessen cheese sandwich prepared salami
dairy|milk and dairy|milk dairy cheese yogurt butter cream egg
bakery|bread and baking|bread bakery bun cake cookie roll flour baking pastry donut
frozen food|frozen food|frozen frzn ice pizza freezer
snacks|snacks and sweets|snack chip cracker candy chocolate cookie popcorn nut
soft drinks|soft drinks and juice|soft drink drinks juice soda cola water beverage lemonade
beer|beer|beer ale lager brewery
wine and spirits|wine and spirits|wine spirit whisky liquor cocktail vodka
coffee and tea|coffee and tea|coffee tea espresso cafe
baby care|caring for a baby|baby infant diaper formula nursery stroller
children|raising children|child children kid toy school playground youth
pets|keeping a pet|pet dog cat litter veterinary aquarium bird puppy
nutrition|nutrition and dietary foods|nutrition diet vitamin protein supplement organic natural
health|health and medicine|health pharmacy medicine medical pain cold dental doctor clinic drug
fitness|sport and fitness|fitness gym sport yoga running swimming cycling marathon dumbbell
beauty|cosmetics and beauty|cosmetic beauty makeup lipstick perfume skin nail
personal care|personal care|hair shampoo soap deodorant shaving tooth oral hand body
household cleaning|household cleaning|cleaning laundry detergent paper towel trash bleach household
home|furnishing a home|home furniture sofa curtain mattress kitchen paint light
moving home|moving to a new home|moving van rent removal
gardening|gardening|garden gardening flower plant seed lawn soil greenhouse
repairs|tools and repairs|hardware tool repair drill plumber electric
motoring|owning a car|car petrol fuel gasoline tyre motor engine parking toll
public transport|getting around without a car|transport bus train bike metro ticket
travel|travel and holidays|travel flight hotel holiday suitcase airport tour visa
eating out|eating in restaurants|restaurant dining cafe buffet
takeaway food|takeaway food|takeaway delivery pizza burger noodle sushi
cooking|cooking at home|cooking spice oil sauce recipe pan pasta rice
quick meals|convenience meals|convenience meal soup microwave instant dinner ready
special diets|a special diet|organic gluten vegan vegetarian free
seasonal buying|seasonal and holiday buying|christmas halloween easter seasonal valentine holiday
party giving|giving parties|party balloon cake gift card greeting
gifts|giving presents|gift present greeting card flower wedding
fashion|fashion and clothing|fashion clothing dress coat shoes sneakers handbag apparel
luxury|luxury brands|luxury designer watch perfume silk leather
electronics|electronics and phones|electronic phone laptop tablet camera charger battery
gaming|video games|game gaming console esports arcade
reading|reading|book magazine newspaper novel reading comic
music|music and concerts|music concert festival guitar vinyl record
cinema|films and series|movie film cinema streaming series dvd
arts and crafts|arts and crafts|craft art sewing paint yarn hobby
education|study and courses|course school exam university tutoring stationery language
work|work and career|office work career job business
new job|looking for work|job career salary training certificate
charity|charity and community|charity donation volunteer community
faith|faith and tradition|temple church religious tradition
ecology|a greener life|ecology green tree recycling solar refill second
discounts|discounts and promotions|discount sale promotion offer deal clearance
coupons|coupons|coupon voucher redeemed code
loyalty|loyalty programmes|loyalty stamp member points card
campaigns|answering campaigns|campaign mailer advertisement type
private label|store brands|private label
big brands|national brands|national brand
bulk buying|buying in bulk|bulk pack family value
saving money|saving money|saving savings budget cheap
investing|investing|invest fund share bond portfolio dividend gold
pension|retirement|pension retirement senior
insurance|insurance|insurance policy claim
credit|credit and loans|loan credit instalment debt overdraft advance
late payment|falling behind on payments|late fee overdue debt reminder repayment
gambling|gambling and lotteries|lottery gambling betting casino poker jackpot
bills|household bills|bill utility electricity rent phone
transfers|sending money|transfer remittance payment cash
online shopping|shopping online|online checkout order parcel shipping
search habits|what is searched|search near best
apps|apps and services|app finder booking service
tobacco|tobacco|cigarette tobacco smoking cigar
newspapers|news|news newspaper weather
wellbeing|rest and wellbeing|massage sleep spa wellness candle
"""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Something a question can be about.

    Attributes:
        name: short and unique.
        subject: how a question names it.
        keywords: lower-case words; an event text is of the topic when a word of it begins so.
    """

    name: str
    subject: str
    keywords: frozenset[str]


def _read(line: str) -> Topic:
    name, subject, keywords = line.split("|")
    return Topic(name=name, subject=subject, keywords=frozenset(keywords.split()))


TOPICS: tuple[Topic, ...] = tuple(_read(line) for line in _TABLE.strip().splitlines())
TOPIC_OF_NAME: Mapping[str, Topic] = {topic.name: topic for topic in TOPICS}

_WORDS = re.compile(r"[^\W\d_]+")


def is_about(topic: Topic, text: str) -> bool:
    """Whether a word of ``text`` is a keyword of ``topic`` (its plural included)."""
    return not topic.keywords.isdisjoint(_word_forms(text))


@lru_cache(maxsize=200_000)
def topics_about(text: str) -> frozenset[str]:
    """Names of the topics that ``text`` is about."""
    return frozenset(topic.name for topic in TOPICS if is_about(topic, text))


@lru_cache(maxsize=200_000)
def _word_forms(text: str) -> frozenset[str]:
    """The words of ``text`` in lower case, and each without an ending s or es."""
    words = _WORDS.findall(text.lower())
    return frozenset(
        [*words, *(w[:-1] for w in words if w.endswith("s")), *(w[:-2] for w in words if w.endswith("es"))]
    )
