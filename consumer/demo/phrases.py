"""Texts of the synthetic evaluation: short questions and answers in many scripts. Data alone."""

from typing import NamedTuple


class Language(NamedTuple):
    """One language: a question with room for a thing, and pairs of a thing and its colour."""

    question: str
    things: tuple[tuple[str, str], ...]


LANGUAGES = (
    Language("What colour is the {}?", (("door", "red"), ("bicycle", "green"), ("umbrella", "yellow"))),
    Language("De quelle couleur est {} ?", (("la porte", "rouge"), ("le vélo", "vert"), ("l'œuf", "blanc"))),
    Language("Welche Farbe hat {}?", (("die Tür", "rot"), ("das Gemüse", "grün"), ("der Fuß", "weiß"))),
    Language("{}是什么颜色的？", (("门", "红色"), ("自行车", "绿色"), ("雨伞", "黄色"))),
    Language("{}は何色ですか。", (("ドア", "赤"), ("自転車", "緑"), ("傘", "黄色"))),
    Language("{}은 무슨 색입니까?", (("문", "빨간색"), ("우산", "노란색"), ("지붕", "초록색"))),
    Language("{} का रंग क्या है?", (("दरवाज़े", "लाल"), ("साइकिल", "हरा"), ("छाते", "पीला"))),
    Language("{}สีอะไร", (("ประตู", "แดง"), ("จักรยาน", "เขียว"), ("ร่ม", "เหลือง"))),
    Language("ما لون {}؟", (("الباب", "أحمر"), ("الدراجة", "أخضر"), ("المظلة", "أصفر"))),
    Language("מה הצבע של {}?", (("הדלת", "אדום"), ("האופניים", "ירוק"), ("המטרייה", "צהוב"))),
    Language("Ce culoare are {}?", (("ușa", "roșu"), ("bicicleta", "verde"), ("umbrela", "galben"))),
    Language("Какого цвета {}?", (("дверь", "красный"), ("велосипед", "зелёный"), ("зонт", "жёлтый"))),
)

SIGNS = (
    "Ausgang freihalten ❗",
    "出口は左側です",
    "ทางออกฉุกเฉิน 🚪",
    "Пожалуйста, не курить 🚭",
    "Ne pas obstruer — sortie de secours",
    "يرجى إبقاء الباب مغلقًا",
    "請勿觸摸展品",
    "Mind the gap between the train and the platform 🚆",
)
