"""Other wordings of each scenario's question, written before any of them was scored.

A person would ask the same thing in these words. They are not chosen by their figures and not changed
afterwards; the evaluation reports what rewording loses on average.
"""

FIXED_QUERY = "What will this household do next?"
"""One question for every task: it names none of them."""

PARAPHRASES: dict[str, tuple[str, str, str, str, str]] = {
    "redeem": (
        "Is this household going to use a coupon within the next two months?",
        "In the coming eight weeks, will these shoppers hand in a coupon at the checkout?",
        "How likely is it that this family redeems one of our coupons soon?",
        "Will they take up a coupon offer in the next couple of months?",
        "Do we expect a coupon redemption from this household over the next sixty days?",
    ),
    "no_purchase": (
        "Is this household about to leave us and buy nothing any more?",
        "Will these customers cease to shop at our stores in the next few months?",
        "Is this family likely to churn?",
        "Are they going to stop buying from us over the coming months?",
        "In the months ahead, will we lose this household as a customer?",
    ),
    "nutrition": (
        "Is this household going to purchase health food, vitamins or other nutrition products?",
        "Do these shoppers buy vitamins, supplements or healthy nutrition items?",
        "Will there be nutrition products or vitamins in this family's basket?",
        "Are they likely to shop for health food and vitamins?",
        "Can we expect this household to spend money on nutrition and health food?",
    ),
    "deli": (
        "Is this household going to shop at the deli counter for meat, cheese or salad?",
        "Do these customers get sliced meat, cheese or prepared salads from the deli?",
        "Will there be deli meat, deli cheese or a deli salad in this family's basket?",
        "Are they likely to buy something from the delicatessen?",
        "Can we expect deli purchases, such as meats, cheeses and salads, from this household?",
    ),
    "pet": (
        "Is there a dog or a cat in this home, so that they buy pet food or cat litter?",
        "Do these shoppers own a pet and buy food for their dog or cat?",
        "Will this family purchase dog food, cat food or litter?",
        "Are they dog or cat owners who need pet supplies?",
        "Can we expect this household to buy food or litter for a cat or a dog?",
    ),
    "baby": (
        "Is there a baby in this home, so that they buy diapers, formula or baby food?",
        "Do these shoppers have an infant and buy things for the baby?",
        "Will this family purchase baby food, nappies or infant formula?",
        "Are they parents of a small baby who need diapers and formula?",
        "Can we expect this household to buy baby products?",
    ),
    "beer": (
        "Is this household going to purchase beer or ale?",
        "Do these shoppers drink beer and buy it here?",
        "Will there be beer or ale in this family's basket?",
        "Are they likely to buy a pack of beer?",
        "Can we expect this household to spend money on beers and ales?",
    ),
}
"""By task, five wordings of its scenario's query."""
